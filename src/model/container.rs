//! What a container is to every room: who it is and how it is doing.

use std::collections::BTreeMap;

/// A container as a listing, an inspection or an event describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the leading slash that the API puts before it.
    pub name: String,
    /// As it was named when the container was created, `nginx:1`.
    pub image: String,
    /// All of them, Compose's included.
    pub labels: BTreeMap<String, String>,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub state: String,
    /// What its newest run ended with; `None` while it is up, before it ever was, and where nobody told.
    pub exit_code: Option<i64>,
    /// Network name to the address in it; empty when the container has none now.
    pub networks: BTreeMap<String, String>,
    /// Labels that it may have without their being among `labels`: what told of it has attributes of the same names.
    pub hidden: &'static [&'static str],
}

impl Container {
    /// The Compose project it belongs to.
    pub fn project(&self) -> Option<&str> {
        self.labels.get("com.docker.compose.project").map(String::as_str)
    }

    /// The Compose service it is an instance of.
    pub fn service(&self) -> Option<&str> {
        self.labels.get("com.docker.compose.service").map(String::as_str)
    }

    /// Whether its main process exists, so that it can still write.
    pub fn is_up(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
    }
}

/// Labels of one container, or networks, take so much memory at most. Nothing else limits them, and there may be thousands
/// of containers.
pub const LABELS: usize = 64 << 10;

/// Memory that a pair takes in a map, about.
pub fn weight(name: &str, value: &str) -> usize {
    name.len() + value.len() + 96
}

/// Takes away the longest pairs until the others fit into [`LABELS`], and returns what those take. Which ones go does not
/// depend on the order in which they were told, so a listing, an inspection and an event leave the same.
pub fn bound(pairs: &mut BTreeMap<String, String>) -> usize {
    let whole: usize = pairs.iter().map(|(name, value)| weight(name, value)).sum();
    if whole <= LABELS {
        return whole;
    }
    let mut shortest_first: Vec<_> =
        std::mem::take(pairs).into_iter().map(|(name, value)| (weight(&name, &value), name, value)).collect();
    shortest_first.sort_unstable();
    let mut kept = 0;
    for (weight, name, value) in shortest_first {
        if kept + weight > LABELS {
            break;
        }
        kept += weight;
        pairs.insert(name, value);
    }
    kept
}

/// The first twelve digits of an ID, as Docker shows it.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Returns whether this is a full container ID: 64 lowercase hexadecimal digits. Such an ID is safe as part of a path.
pub fn is_full_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_labels_go_first_and_the_order_of_telling_does_not_matter() {
        let long = |length: usize| "x".repeat(length);
        let mut labels: BTreeMap<String, String> =
            [("a", 70_000), ("b", 30_000), ("c", 30_000), ("d", 30_000), ("com.docker.compose.project", 4)]
                .map(|(name, length)| (name.to_owned(), long(length)))
                .into();
        let kept = bound(&mut labels);
        assert_eq!(labels.keys().map(String::as_str).collect::<Vec<_>>(), ["b", "c", "com.docker.compose.project"]);
        assert_eq!(bound(&mut labels), kept, "what fits stays");
        let mut one_by_one = BTreeMap::new();
        for (name, length) in
            [("d", 30_000), ("a", 70_000), ("c", 30_000), ("com.docker.compose.project", 4), ("b", 30_000)]
        {
            one_by_one.insert(name.to_owned(), long(length));
            bound(&mut one_by_one);
        }
        assert_eq!(one_by_one, labels);
    }
}
