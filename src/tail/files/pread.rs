//! Positioned reads of log files that are short only at the end of the file.
//!
//! In: an open file, a buffer and an offset. Out: bytes. All reads of uncompressed files in this module go through
//! here.
//!
//! `pread` may return fewer bytes than requested, even none, before the end of the file: because of a signal, a network
//! file system, FUSE, or an error after the bytes that were read. So a short read proves nothing. Only `fstat` says
//! where the file ends, and it is called after the read: if the file has grown in between, it is read once more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// This many empty reads in a row before the end of the file are an error.
const MAX_EMPTY: u32 = 3;

/// Reads once. Returns 0 only at the end of the file.
pub(crate) fn some_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    if into.is_empty() {
        return Ok(0);
    }
    for _ in 0..MAX_EMPTY {
        let read = once_at(file, into, offset)?;
        if read > 0 || file.metadata()?.len() <= offset {
            return Ok(read);
        }
    }
    Err(io::Error::other("its file system returned no bytes before the end of the file"))
}

/// Fills the buffer, or reads up to the end of the file.
pub(crate) fn fill_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let (mut filled, mut empty) = (0, 0);
    while filled < into.len() {
        let read = once_at(file, &mut into[filled..], offset + filled as u64)?;
        filled += read;
        if filled == into.len() || file.metadata()?.len() <= offset + filled as u64 {
            break;
        }
        empty = if read == 0 { empty + 1 } else { 0 };
        if empty == MAX_EMPTY {
            return Err(io::Error::other("its file system returned no bytes before the end of the file"));
        }
    }
    Ok(filled)
}

/// Fills the buffer. Returns `UnexpectedEof` if the file ends before that.
pub(crate) fn exact_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    match fill_at(file, into, offset)? == into.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A single `pread`, repeated while signals interrupt it.
fn once_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    loop {
        #[cfg(test)]
        let read = short::read_at(file, into, offset);
        #[cfg(not(test))]
        let read = file.read_at(into, offset);
        match read {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Makes the reads of a test as short as the kernel may.
#[cfg(test)]
pub(crate) mod short {
    use super::*;
    use std::cell::RefCell;

    /// What happens to a read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::tail) enum Cut {
        /// It returns at most this many bytes.
        To(usize),
        /// A signal interrupts it.
        Interrupted,
        /// The read is left unchanged.
        Whole,
    }

    type NextCut = Box<dyn FnMut() -> Cut>;

    thread_local! {
        static NEXT: RefCell<Option<NextCut>> = const { RefCell::new(None) };
    }

    /// Runs `work`, while `next` decides how each read of this thread is cut.
    pub(in crate::tail) fn during<T>(next: impl FnMut() -> Cut + 'static, work: impl FnOnce() -> T) -> T {
        struct Reset;
        impl Drop for Reset {
            fn drop(&mut self) {
                NEXT.set(None);
            }
        }
        let _reset = Reset;
        NEXT.set(Some(Box::new(next)));
        work()
    }

    /// Repeats `cuts` in turn.
    pub(in crate::tail) fn cycle(cuts: Vec<Cut>) -> impl FnMut() -> Cut + 'static {
        let mut at = 0;
        move || {
            at += 1;
            cuts[(at - 1) % cuts.len()]
        }
    }

    /// Returns whether reads of this thread are cut now.
    pub(in crate::tail) fn is_on() -> bool {
        NEXT.with_borrow(Option::is_some)
    }

    pub(crate) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let cut = NEXT.with_borrow_mut(|next| next.as_mut().map_or(Cut::Whole, |next| next()));
        match cut {
            Cut::To(most) => {
                let most = most.min(into.len());
                file.read_at(&mut into[..most], offset)
            }
            Cut::Interrupted => Err(io::ErrorKind::Interrupted.into()),
            Cut::Whole => file.read_at(into, offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::short::{Cut, cycle, during};
    use super::*;

    /// However reads are cut, each function keeps its promise, and an endless series of empty reads is an error.
    #[test]
    fn short_reads_never_look_like_the_end_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        let file = File::open(&path).unwrap();
        let cuts = [
            vec![Cut::Whole],
            vec![Cut::To(1)],
            vec![Cut::To(0), Cut::To(3)],
            vec![Cut::To(0), Cut::To(0), Cut::To(1)],
            vec![Cut::Interrupted, Cut::To(2), Cut::Interrupted, Cut::To(0)],
        ];
        for cut in cuts {
            for offset in 0..=11 {
                for length in 0..=12 {
                    let left = 10_usize.saturating_sub(offset).min(length);
                    let at = offset as u64;
                    let (some, filled, exact, bytes) = during(cycle(cut.clone()), || {
                        let mut into = vec![0; length];
                        let some = some_at(&file, &mut into, at).unwrap();
                        let exact = exact_at(&file, &mut into, at).map_err(|error| error.kind());
                        (some, fill_at(&file, &mut into, at).unwrap(), exact, into)
                    });
                    let case = format!("{cut:?}, {length} bytes at {offset}");
                    assert!(some <= left && (some > 0) == (left > 0), "{case}: {some}");
                    assert_eq!((filled, &bytes[..left]), (left, &b"0123456789"[offset.min(10)..][..left]), "{case}");
                    assert_eq!(
                        exact,
                        if left == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof) },
                        "{case}"
                    );
                }
            }
        }
        during(cycle(vec![Cut::To(0)]), || {
            assert_eq!(some_at(&file, &mut [0; 4], 8).unwrap_err().kind(), io::ErrorKind::Other);
            assert_eq!(fill_at(&file, &mut [0; 4], 8).unwrap_err().kind(), io::ErrorKind::Other);
            assert_eq!(some_at(&file, &mut [0; 4], 10).unwrap(), 0, "at the end there is nothing to return");
        });
    }
}
