//! One client: a connection of its own, and the library that speaks over it.
//!
//! In: a way to the engine. Out: answers in the library's types. Used by one call at a time, which [`super::Pool`] sees to.

use std::sync::Arc;

use super::super::Error;
use super::super::wire::{self, Wire};

/// See the module.
pub(in crate::docker) struct Client {
    pub(in crate::docker) wire: Arc<Wire>,
    /// Works over `wire`, too.
    pub(in crate::docker) typed: bollard::Docker,
}

impl Client {
    /// Connects when it is first used.
    pub(super) fn new(wire: Wire) -> Result<Arc<Client>, Error> {
        let wire = Arc::new(wire);
        let typed = wire::typed(wire.clone()).map_err(|e| Error::Protocol { what: "a client", source: e.into() })?;
        Ok(Arc::new(Client { wire, typed }))
    }

    /// A call of the library, in our own errors.
    pub(in crate::docker) async fn ask<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, Error> {
        // The library's own limit ends at the headers.
        self.wire.http.within(call).await?.map_err(|error| self.wire.explain(what, error))
    }
}
