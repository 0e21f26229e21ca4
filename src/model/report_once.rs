//! Marks what is reported once, however often it happens.

/// Set once something was reported.
#[derive(Debug, Default)]
pub(crate) struct Once(bool);

impl Once {
    /// Returns whether this is the first call, or the first since the last [`Once::reset`].
    pub(crate) fn is_first(&mut self) -> bool {
        !std::mem::replace(&mut self.0, true)
    }

    /// Lets the next call be the first again. Returns whether there was a call since the last reset.
    pub(crate) fn reset(&mut self) -> bool {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_call_after_a_reset_is_the_first() {
        let mut once = Once::default();
        for (call, expected) in
            [("reset", false), ("first", true), ("first", false), ("reset", true), ("reset", false), ("first", true)]
        {
            let got = if call == "reset" { once.reset() } else { once.is_first() };
            assert_eq!(got, expected, "{call}");
        }
    }
}
