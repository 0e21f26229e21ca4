//! API versions: reading them and choosing the one to speak.
//!
//! In: what the engine says of itself. Out: the version that goes before every path. Called by [`super::Docker`].
//! No single version suits all engines: 20.10 knows nothing above 1.41, 29.0 refuses everything below 1.44 (moby
//! `api/common.go`, `daemon/config/config.go`). Everything we ask for exists in 1.41 and answers alike up to 1.44.

use std::fmt;
use std::str::FromStr;

use super::Error;

/// `1.44`. Ordered by number, so that 1.9 comes before 1.41.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Before the dot; 1 since there is an API.
    pub major: u16,
    /// Behind the dot.
    pub minor: u16,
}

/// The version we were written against and speak when the engine does.
pub const OURS: Version = Version { major: 1, minor: 44 };

/// Below this (Docker 1.12) events lack a type and filters have another form.
pub const OLDEST: Version = Version { major: 1, minor: 24 };

/// What to speak with an engine whose newest version is `newest` and that refuses what is below `minimum`, where known.
/// Between [`OURS`] and a higher minimum the engine's newest wins: additions are harmless, a refusal is not.
pub fn choose(newest: Version, minimum: Option<Version>) -> Result<Version, Error> {
    if newest < OLDEST {
        return Err(Error::TooOld { engine: newest, wanted: OLDEST });
    }
    if minimum.unwrap_or(newest).min(newest).major > OURS.major {
        return Err(Error::TooNew { engine: newest, wanted: OURS });
    }
    match minimum {
        Some(minimum) if minimum > OURS => Ok(newest),
        _ => Ok(OURS.min(newest)),
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = ();

    /// `1.41`, or `v1.41` as some write it into `DOCKER_API_VERSION`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.strip_prefix('v').unwrap_or(text).split_once('.').ok_or(())?;
        Ok(Version { major: number(major)?, minor: number(minor)? })
    }
}

fn number(digits: &str) -> Result<u16, ()> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().map_err(|_| ()) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn every_engine_is_spoken_to_in_a_version_it_takes() {
        for (engine, newest, minimum, spoken) in [
            ("1.12.0", "1.24", None, "1.24"),
            ("19.03", "1.40", Some("1.12"), "1.40"),
            ("20.10", "1.41", Some("1.12"), "1.41"),
            ("24.0", "1.43", Some("1.12"), "1.43"),
            ("25.0", "1.44", Some("1.24"), "1.44"),
            ("28.5", "1.51", Some("1.24"), "1.44"),
            ("29.0", "1.52", Some("1.44"), "1.44"),
            ("29.7", "1.55", Some("1.40"), "1.44"),
            ("29 with a raised minimum", "1.53", Some("1.52"), "1.53"),
            ("no minimum told", "1.51", None, "1.44"),
        ] {
            let chosen = choose(version(newest), minimum.map(version)).unwrap();
            assert_eq!(chosen.to_string(), spoken, "{engine}");
        }
    }

    #[test]
    fn an_engine_outside_our_reach_is_told_in_one_line() {
        for (newest, line) in [
            ("1.23", "the engine speaks API 1.23 at most and 1.24 is needed: it is too old"),
            ("0.9", "the engine speaks API 0.9 at most and 1.24 is needed: it is too old"),
            ("2.0", "the engine takes API 2.0 at least and 1.44 was to be spoken: it is too new"),
        ] {
            assert_eq!(choose(version(newest), None).unwrap_err().to_string(), line);
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "1", "1.", ".41", "1.x", "1.41.2", "+1.41", "1.+4", "1.99999"] {
            assert_eq!(text.parse::<Version>(), Err(()), "{text}");
        }
        assert_eq!("v1.41".parse(), Ok(version("1.41")));
    }
}
