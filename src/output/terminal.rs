//! What a container wrote, made safe for a terminal.
//!
//! In: the bytes of a message. Out: text that moves no cursor, sets no title and starts nothing. A terminal obeys C0 and
//! C1 control characters and the sequences that ESC, CSI and OSC begin (ECMA-48); bidirectional controls reorder what
//! follows (Unicode TR 9). SGR sequences, which only colour, may pass.

/// What becomes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controls {
    /// As they are.
    Keep,
    /// Shown as `cat -v` does; colours pass.
    Show,
    /// Left out, and the sequences with them.
    Strip,
}

const RESET: &[u8] = b"\x1b[0m";

/// Appends a message.
pub(super) fn write(message: &[u8], controls: Controls, out: &mut Vec<u8>) {
    match controls {
        Controls::Keep => out.extend_from_slice(message),
        // A terminal's own line end; the container had one when it wrote this.
        Controls::Show => show(message.strip_suffix(b"\r").unwrap_or(message), out),
        Controls::Strip => strip(message.strip_suffix(b"\r").unwrap_or(message), out),
    }
}

/// Copies the ASCII that does nothing, and returns what comes behind.
fn copy_printable<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let len = bytes.iter().take_while(|byte| (0x20..0x7f).contains(*byte)).count();
    let (printable, behind) = bytes.split_at(len);
    out.extend_from_slice(printable);
    behind
}

fn show(message: &[u8], out: &mut Vec<u8>) {
    let mut rest = message;
    let mut is_coloured = false;
    while !rest.is_empty() {
        rest = copy_printable(rest, out);
        if let Some(len) = sgr(rest) {
            out.extend_from_slice(&rest[..len]);
            is_coloured = true;
            rest = &rest[len..];
        } else {
            rest = show_character(rest, out);
        }
    }
    if is_coloured {
        // Or it would colour what follows, our own prefix first.
        out.extend_from_slice(RESET);
    }
}

/// Length of the SGR sequence at the start.
fn sgr(bytes: &[u8]) -> Option<usize> {
    let parameters = bytes.strip_prefix(b"\x1b[")?;
    let len = parameters.iter().take_while(|byte| matches!(byte, b'0'..=b';')).count();
    (parameters.get(len) == Some(&b'm')).then_some(len + 3)
}

fn show_character<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let (character, rest) = first(bytes);
    match character {
        Some('\t') => out.push(b'\t'),
        Some(control @ ('\0'..='\x1f' | '\x7f')) => {
            // ASCII: the caret form flips one bit.
            out.extend_from_slice(&[b'^', control as u8 ^ 0x40]);
        }
        Some(character) if is_unsafe(character) => {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
        }
        Some(_) => out.extend_from_slice(&bytes[..bytes.len() - rest.len()]),
        None => out.extend_from_slice(
            bytes.iter().take(1).map(|byte| format!("\\x{byte:02x}")).collect::<String>().as_bytes(),
        ),
    }
    rest
}

/// Characters beyond ASCII that a terminal obeys, or that change how its line reads.
pub(super) fn is_unsafe(character: char) -> bool {
    matches!(character, '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

/// The first character, or `None` for a byte that begins none; and what comes behind.
fn first(bytes: &[u8]) -> (Option<char>, &[u8]) {
    let longest = bytes.len().min(4);
    let character = (1..=longest).find_map(|len| std::str::from_utf8(&bytes[..len]).ok()?.chars().next());
    let len = character.map_or(1, char::len_utf8);
    (character, bytes.get(len..).unwrap_or_default())
}

fn strip(message: &[u8], out: &mut Vec<u8>) {
    let mut rest = message;
    while !rest.is_empty() {
        rest = copy_printable(rest, out);
        if let Some(len) = sequence(rest) {
            rest = &rest[len..];
            continue;
        }
        let (character, behind) = first(rest);
        let drop = character.is_some_and(|character| (character < ' ' && character != '\t') || is_unsafe(character));
        if !drop {
            out.extend_from_slice(&rest[..rest.len() - behind.len()]);
        }
        rest = behind;
    }
}

/// Length of the escape sequence at the start: CSI up to its final byte, OSC and its like up to BEL or ST, others two or
/// three bytes.
fn sequence(bytes: &[u8]) -> Option<usize> {
    let behind = bytes.strip_prefix(b"\x1b")?;
    let len = match behind.first() {
        None => 0,
        Some(b'[') => {
            1 + behind[1..].iter().position(|byte| (0x40..0x7f).contains(byte)).map_or(behind.len() - 1, |at| at + 1)
        }
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            let end = behind.iter().enumerate().find_map(|(at, &byte)| match byte {
                0x07 => Some(at + 1),
                0x1b if behind.get(at + 1) == Some(&b'\\') => Some(at + 2),
                _ => None,
            });
            end.unwrap_or(behind.len())
        }
        Some(0x20..0x30) => behind.len().min(2),
        Some(_) => 1,
    };
    Some(len + 1)
}

/// Text from outside on one line of a terminal: a name, a label, an error of the engine.
pub fn safe(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    for character in text.chars() {
        let mut buffer = [0; 4];
        show_character(character.encode_utf8(&mut buffer).as_bytes(), &mut out);
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(message: &[u8], controls: Controls) -> String {
        let mut out = Vec::new();
        write(message, controls, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn controls_are_shown_or_left_out() {
        for (message, shown, stripped) in [
            (&b"plain"[..], "plain", "plain"),
            (b"tab\there", "tab\there", "tab\there"),
            (b"\x1b[1;31mred\x1b[0m end", "\x1b[1;31mred\x1b[0m end\x1b[0m", "red end"),
            (b"\x1b[38:2::1:2:3mx", "\x1b[38:2::1:2:3mx\x1b[0m", "x"),
            (b"\x1b]0;title\x07after", "^[]0;title^Gafter", "after"),
            (b"\x1b]8;;http://x\x1b\\link", "^[]8;;http://x^[\\link", "link"),
            (b"\x1b[2J\x1b[Hclear", "^[[2J^[[Hclear", "clear"),
            (b"\x1bPdevice\x1b\\x", "^[Pdevice^[\\x", "x"),
            (b"\x1b(Bset", "^[(Bset", "set"),
            (b"\x1bcreset", "^[creset", "reset"),
            (b"over\rwritten", "over^Mwritten", "overwritten"),
            (b"tty line\r", "tty line", "tty line"),
            (b"nul\0bell\x07del\x7f", "nul^@bell^Gdel\\u007f", "nulbelldel"),
            ("c1 \u{9b}2J".as_bytes(), "c1 \\u009b2J", "c1 2J"),
            ("bidi \u{202e}x".as_bytes(), "bidi \\u202ex", "bidi x"),
            ("ümlaut 😀 e\u{301}".as_bytes(), "ümlaut 😀 e\u{301}", "ümlaut 😀 e\u{301}"),
            (b"bad \xff\xc3(", "bad \\xff\\xc3(", "bad \u{fffd}\u{fffd}("),
            (b"\x1b", "^[", ""),
            (b"\x1b[", "^[[", ""),
            (b"\x1b]", "^[]", ""),
        ] {
            let shown = shown.replace("\\u007f", "^?");
            assert_eq!(written(message, Controls::Show), shown, "{message:?}");
            assert_eq!(written(message, Controls::Strip), stripped, "{message:?}");
            assert_eq!(written(message, Controls::Keep).as_bytes(), String::from_utf8_lossy(message).as_bytes());
        }
    }

    proptest! {
        /// Whatever is written, a terminal meets no control but tab and the ESC of a colour.
        #[test]
        fn no_other_control_reaches_a_terminal(message: Vec<u8>, strip: bool) {
            let controls = if strip { Controls::Strip } else { Controls::Show };
            let mut rest = Vec::new();
            write(&message, controls, &mut rest);
            let mut rest = rest.as_slice();
            while let Some(&byte) = rest.first() {
                let len = sgr(rest).unwrap_or(1);
                prop_assert!(len > 1 || byte == b'\t' || (byte >= 0x20 && byte != 0x7f), "{rest:?}");
                rest = &rest[len..];
            }
        }
    }
}
