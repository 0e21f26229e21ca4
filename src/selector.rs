//! Which containers are asked for.

use std::collections::BTreeMap;

/// Filters as the engine's list and events endpoints take them: key to the values of that key.
pub type Filters = BTreeMap<String, Vec<String>>;

/// Which containers are asked for.
#[derive(Clone, Debug, Default)]
pub struct Selector {}
