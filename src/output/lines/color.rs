//! Chooses the colour of a container's name: the same in every run, and for all instances of a Compose service.

use crate::model::container::Container;
use owo_colors::{AnsiColors, Style};

/// Distinguishable on light and dark backgrounds. Red and green are reserved for failure and success.
const PALETTE: [AnsiColors; 8] = [
    AnsiColors::Cyan,
    AnsiColors::Yellow,
    AnsiColors::Magenta,
    AnsiColors::Blue,
    AnsiColors::BrightCyan,
    AnsiColors::BrightYellow,
    AnsiColors::BrightMagenta,
    AnsiColors::BrightBlue,
];

/// The style of a container's name.
pub(super) fn style(container: &Container) -> Style {
    let hash = match (container.project(), container.service()) {
        (Some(project), Some(service)) => fnv(&[project, service]),
        _ => fnv(&[&container.name]),
    };
    // The remainder fits any `usize`; the hash may not.
    Style::new().color(PALETTE[(hash % PALETTE.len() as u64) as usize])
}

/// FNV-1a, because the standard library's hasher, and with it the colours, may change between releases.
fn fnv(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([b'/']));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, service: &str) -> Container {
        let labels = [("com.docker.compose.project", "shop"), ("com.docker.compose.service", service)];
        Container {
            name: name.into(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..Container::default()
        }
    }

    #[test]
    fn instances_of_a_service_share_a_fixed_colour() {
        assert_eq!(style(&service("shop-web-1", "web")), style(&service("shop-web-2", "web")));
        assert_ne!(style(&service("shop-web-1", "web")), style(&service("shop-db-1", "db")));
        assert_eq!(fnv(&["web"]), 4_430_798_720_957_313_850);
    }
}
