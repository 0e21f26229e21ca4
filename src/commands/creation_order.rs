//! Resolves the filters `before` and `since`, which compare the creation order of containers.
//!
//! In: the selector from the command line. Out: the same selector with these filters resolved to sets of IDs. Called
//! once, before the first listing.

use crate::docker::{Docker, Error};
use crate::model::selector::{Filters, Selector};
use std::collections::HashSet;

/// Asks the engine which containers pass the filters, if there are any. The request for all containers comes first, so
/// a container that is created between the two answers is not known yet and counts as new.
pub(super) async fn resolve(docker: &Docker, selector: &mut Selector) -> Result<(), Error> {
    let order = selector.order();
    if order.is_empty() {
        return Ok(());
    }
    let ids = async |filters: &Filters| -> Result<HashSet<String>, Error> {
        Ok(docker.list(filters).await?.into_iter().map(|container| container.id).collect())
    };
    let known = ids(&Filters::new()).await?;
    let passing = ids(&order).await?;
    selector.set_order(known, passing);
    Ok(())
}
