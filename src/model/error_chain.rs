//! The causes of an error, as messages show them.

use std::error::Error;

/// The texts of an error and its causes. A cause is left out if the text before it already ends with it, as with some
/// libraries.
pub(crate) fn texts(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string().trim_end().to_owned();
        if !texts.last().is_some_and(|previous| previous.ends_with(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    pub(crate) struct TestError {
        text: &'static str,
        source: Option<Box<TestError>>,
    }

    /// Returns an error with these texts, the causes last.
    pub(crate) fn error(texts: &[&'static str]) -> TestError {
        let (text, rest) = texts.split_first().unwrap();
        TestError { text, source: (!rest.is_empty()).then(|| Box::new(error(rest))) }
    }

    #[test]
    fn each_cause_is_shown_once() {
        for (chain, expected) in [
            (&["a"][..], &["a"][..]),
            (&["a", "b", "c"], &["a", "b", "c"]),
            (&["cannot read: no such file", "no such file", "why"], &["cannot read: no such file", "why"]),
            (&["a\n", "b \n"], &["a", "b"]),
        ] {
            assert_eq!(texts(&error(chain)), expected, "{chain:?}");
        }
    }
}
