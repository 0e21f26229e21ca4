//! Positioned reads of log files, with the guarantees that the rest of this room relies on.
//!
//! In: an open file, a buffer and an offset. Out: bytes. Called by [`super::handle`], [`super::format`] and
//! [`super::seek`], which read plain files by nothing else.
//!
//! `pread` may return fewer bytes than were asked for, and even none, although the file goes on: a signal, a network file
//! system, FUSE, an error behind the bytes that were read. So the length of a read proves nothing. Where a file ends is
//! what `fstat` says, and only after the read: a file that grows in between is read once more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// So many reads in a row may return nothing before the end of the file. Then it counts as an error.
const MOST_EMPTY: u32 = 3;

/// Reads what one call of the kernel returns: nothing only at the end of the file.
pub(crate) fn some_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    if into.is_empty() {
        return Ok(0);
    }
    for _ in 0..MOST_EMPTY {
        let read = once_at(file, into, offset)?;
        if read > 0 || file.metadata()?.len() <= offset {
            return Ok(read);
        }
    }
    Err(io::Error::other("its file system returns less than the file holds"))
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
        if empty == MOST_EMPTY {
            return Err(io::Error::other("its file system returns less than the file holds"));
        }
    }
    Ok(filled)
}

/// Fills the buffer. `UnexpectedEof` when the file ends before that.
pub(crate) fn exact_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    match fill_at(file, into, offset)? == into.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// One call of the kernel, repeated while signals interrupt it.
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

/// Has the reads of a test return as little as the kernel is allowed to.
#[cfg(test)]
pub(crate) mod short {
    use super::*;
    use std::cell::RefCell;

    /// What the next read does.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::tail) enum Cut {
        /// It returns at most so many bytes.
        To(usize),
        /// A signal interrupts it.
        Interrupted,
        /// It is left alone.
        Whole,
    }

    type Next = Box<dyn FnMut() -> Cut>;

    thread_local! {
        static NEXT: RefCell<Option<Next>> = const { RefCell::new(None) };
    }

    /// While `work` runs, each read of this thread asks `next` first.
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

    /// Does these in turn, over and over.
    pub(in crate::tail) fn cycle(cuts: Vec<Cut>) -> impl FnMut() -> Cut + 'static {
        let mut at = 0;
        move || {
            at += 1;
            cuts[(at - 1) % cuts.len()]
        }
    }

    /// Whether reads are cut on this thread now.
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

    /// However the reads are cut, each function returns what it promises, and an endless row of empty reads is an error.
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
