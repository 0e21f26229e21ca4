//! What every module knows about a container: its identity, its labels and its state.

use std::collections::BTreeMap;

/// A container as a listing, an inspection or an event describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The full ID of 64 hexadecimal digits.
    pub id: String,
    /// Without the leading slash of the API.
    pub name: String,
    /// The image reference with which the container was created, such as `nginx:1`.
    pub image: String,
    /// All labels, including those that Compose sets.
    pub labels: BTreeMap<String, String>,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub state: String,
    /// The exit code of the latest run. `None` while the container is up, before its first run, and if unknown.
    pub exit_code: Option<i64>,
    /// Network name to address. Empty if the container has no address now.
    pub networks: BTreeMap<String, String>,
    /// Names of labels that the container may have although they are not in `labels`: an event has attributes of its
    /// own with these names, which hide the labels.
    pub hidden: &'static [&'static str],
}

impl Container {
    /// The Compose project that the container belongs to.
    pub fn project(&self) -> Option<&str> {
        self.labels.get("com.docker.compose.project").map(String::as_str)
    }

    /// The Compose service that the container is an instance of.
    pub fn service(&self) -> Option<&str> {
        self.labels.get("com.docker.compose.service").map(String::as_str)
    }

    /// Whether the container's main process exists, so that the container can still write.
    pub fn is_up(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
    }
}

/// The limit for the labels of one container, and for its networks, in bytes of memory. Docker does not limit them, and
/// there may be thousands of containers.
pub(crate) const LABELS: usize = 64 << 10;

/// The approximate memory that a pair takes in a map, in bytes.
pub(crate) fn weight(name: &str, value: &str) -> usize {
    name.len() + value.len() + 96
}

/// Removes the largest pairs until the rest fits into [`LABELS`], and returns the size of the rest. The result does not
/// depend on the order in which the pairs arrived, so that a listing, an inspection and an event keep the same ones.
pub(crate) fn bound(pairs: &mut BTreeMap<String, String>) -> usize {
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
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Returns whether this is a full container ID: 64 lowercase hexadecimal digits. Such an ID is safe as part of a path.
pub(crate) fn is_full_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_labels_are_removed_first_in_any_order() {
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
