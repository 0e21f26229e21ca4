//! Checks of the event decoder that hold for any input; see [`crate::model::fuzz_checks`].

use super::event_decoder::{Event, Splitter};
use crate::model::fuzz_checks::{Script, chunks, lengths};
use serde::de::IgnoredAny;
use serde_json::Value;

/// Decodes a body of events in chunks. The first bytes of the input determine the chunks.
pub fn events(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let cuts = lengths(script.take(4));
    let body = script.rest();
    let whole = split([body]);
    assert_eq!(split(chunks(&cuts, body)), whole, "in different chunks");
    let lines = body.split(|byte| *byte == b'\n').map(trim_line).filter(|line| !line.is_empty());
    assert_eq!(lines.clone().count(), whole.len(), "one result per line");
    for (line, event) in lines.zip(&whole) {
        match event {
            Ok(event) => agree(line, event),
            // Only lines that dockerd would not send may be errors.
            Err(error) => assert!(!is_from_dockerd(line), "{error}: {}", line.escape_ascii()),
        }
    }
}

/// Decoded events, and errors as their messages.
fn split<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Result<Event, String>> {
    let mut splitter = Splitter::default();
    let mut results = Vec::new();
    for chunk in chunks {
        splitter.push(chunk);
        while let Some(event) = splitter.next() {
            results.push(event.map_err(|error| error.to_string()));
        }
    }
    results.extend(splitter.rest().map(|event| event.map_err(|error| error.to_string())));
    results
}

/// A line without whitespace and record separator around the object.
fn trim_line(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    line.strip_prefix(&[0x1e]).unwrap_or(line).trim_ascii()
}

/// Whether a line is an object with exactly the fields that an event has since API 1.22, with the right types.
fn is_from_dockerd(line: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return false };
    let (event, actor) = (value.as_object(), value["Actor"].as_object());
    let attributes = value["Actor"]["Attributes"].as_object();
    event.is_some_and(|event| event.keys().eq(["Action", "Actor", "Type", "timeNano"]))
        && actor.is_some_and(|actor| actor.keys().eq(["Attributes", "ID"]))
        && attributes.is_some_and(|attributes| attributes.values().all(Value::is_string))
        && [&value["Type"], &value["Action"], &value["Actor"]["ID"]].into_iter().all(Value::is_string)
        && value["timeNano"].as_i64().is_some_and(|nanos| nanos != 0)
        // A repeated key is merged in a map, and is an error in an event.
        && serde_json::to_vec(&value).is_ok_and(|again| again.len() == line.len())
}

/// Compares an event with what `serde_json` decodes from its line.
fn agree(line: &[u8], event: &Event) {
    assert!(serde_json::from_slice::<IgnoredAny>(line).is_ok(), "no JSON: {}", line.escape_ascii());
    // `IgnoredAny` skips strings that a `Value` cannot hold, such as lone surrogates.
    let Ok(value) = serde_json::from_slice::<Value>(line) else { return };
    let actor = &value["Actor"];
    // Serde accepts an array in place of a struct, with the fields in the order of their declaration.
    if value.is_array() || actor.is_array() {
        return;
    }
    let text = |name: &str| value[name].as_str();
    assert_eq!(event.kind, text("Type").unwrap_or("container"));
    assert_eq!(event.scope, text("scope").unwrap_or("local"));
    assert_eq!((&*event.status, &*event.from), (text("status").unwrap_or(""), text("from").unwrap_or("")));
    assert_eq!(event.id, actor["ID"].as_str().or(text("id")).unwrap_or(""));
    let action = text("Action").unwrap_or(&event.status);
    let expected = [action, &format!("health_status: {}", text("HealthStatus").unwrap_or(""))];
    match event.action.as_str() {
        "destroy" | "die" if !expected.contains(&&*event.action) => {
            assert!(matches!(action, "remove" | "died"), "{action}")
        }
        other => assert!(expected.contains(&other), "{other} of {action}"),
    }
    let nanos = value["timeNano"].as_i64().filter(|nanos| *nanos != 0);
    let seconds = || value["time"].as_i64().and_then(|seconds| seconds.checked_mul(1_000_000_000));
    assert_eq!(Some(event.time.0), nanos.or_else(seconds));
    if let Some(theirs) = actor["Attributes"].as_object() {
        for (name, theirs) in theirs {
            assert_eq!(event.attributes.get(name).map(String::as_str), theirs.as_str(), "{name}");
        }
    }
    assert_eq!(event.container().is_some(), event.kind == "container" && !event.id.is_empty());
}

#[cfg(test)]
mod tests {
    use crate::model::fuzz_checks::tests::try_out;

    #[test]
    fn events_are_the_same_as_serde_json_finds() {
        try_out("events", super::events);
    }
}
