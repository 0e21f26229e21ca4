//! Reads the small files that determine the endpoint.

use std::io;
use std::path::Path;

use crate::docker::Error;
use crate::model::bounded_read;

/// Limit for a file, in bytes. The certificates of all public authorities together take a quarter of it.
const MAX_FILE: usize = 1 << 20;

pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    bounded_read::read_small(path, MAX_FILE)
}

/// Reads a certificate or key.
pub(super) fn read_pem(path: &Path) -> Result<Vec<u8>, Error> {
    read(path).map_err(|source| Error::TlsFile { path: path.to_owned(), source })
}

/// Reads a certificate or key; `None` if there is no such file.
pub(super) fn read_optional_pem(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match read(path) {
        Ok(pem) => Ok(Some(pem)),
        Err(e) if is_not_found(&e) => Ok(None),
        Err(source) => Err(Error::TlsFile { path: path.to_owned(), source }),
    }
}

pub(super) fn is_not_found(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
