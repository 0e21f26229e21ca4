//! Versions of the Docker Engine API.

use std::fmt;
use std::str::FromStr;

/// A version such as `1.44`. Ordered numerically, so that 1.9 comes before 1.41.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Has always been 1 so far.
    pub major: u16,
    pub minor: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = ();

    /// Accepts `1.41`, and `v1.41`, as some users write it in `DOCKER_API_VERSION`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.strip_prefix('v').unwrap_or(text).split_once('.').ok_or(())?;
        Ok(Version { major: number(major)?, minor: number(minor)? })
    }
}

fn number(digits: &str) -> Result<u16, ()> {
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if is_number { digits.parse().map_err(|_| ()) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn an_invalid_version_is_refused() {
        for text in ["", "1", "1.", ".41", "1.x", "1.41.2", "+1.41", "1.+4", "1.99999"] {
            assert_eq!(text.parse::<Version>(), Err(()), "{text}");
        }
        assert_eq!("v1.41".parse(), Ok(version("1.41")));
    }
}
