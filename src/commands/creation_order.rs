//! Which containers were created before or since another one, as the filters `before` and `since` ask.
//!
//! In: the selector as it was given. Out: the same with what these filters come to. Called once, before the first listing.

use crate::docker::{Docker, Error};
use crate::model::selector::{Filters, Selector};
use std::collections::HashSet;

/// Asks the engine, where such filters were given. All containers come first: one that is created between the two answers
/// is then new, and is treated as such.
pub(super) async fn settle(docker: &Docker, selector: &mut Selector) -> Result<(), Error> {
    let order = selector.order();
    if order.is_empty() {
        return Ok(());
    }
    let ids = async |filters: &Filters| -> Result<HashSet<String>, Error> {
        Ok(docker.list(true, filters).await?.into_iter().map(|container| container.id).collect())
    };
    let known = ids(&Filters::new()).await?;
    let passing = ids(&order).await?;
    selector.set_order(known, passing);
    Ok(())
}
