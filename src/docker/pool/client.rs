//! One client: a connection of its own.
//!
//! In: a way to the engine. Out: answers. Used by one call at a time, which [`super::Pool`] sees to.

use std::sync::Arc;

use crate::docker::api::Api;

/// See the module.
pub(in crate::docker) struct Client {
    pub(in crate::docker) wire: Api,
}

impl Client {
    /// Connects when it is first used.
    pub(super) fn new(wire: Api) -> Arc<Client> {
        Arc::new(Client { wire })
    }
}
