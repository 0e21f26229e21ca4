//! A client of the pool: an [`Api`] with a connection of its own. [`super::Pool`] makes sure that only one call at a
//! time uses it.

use std::sync::Arc;

use crate::docker::api::Api;

pub(in crate::docker) struct Client {
    pub(in crate::docker) api: Api,
}

impl Client {
    /// The connection is opened by the first call.
    pub(super) fn new(api: Api) -> Arc<Client> {
        Arc::new(Client { api })
    }
}
