//! Makes untrusted text safe for a terminal. This is the only sanitiser of the program.
//!
//! The output moves no cursor, sets no title and triggers nothing. A terminal interprets C0 and C1 control characters
//! and the sequences that ESC, CSI and OSC introduce (ECMA-48), and bidirectional controls reorder the text that
//! follows (Unicode TR 9). SGR sequences, which only set colours, may pass.
//!
//! [`safe`] prepares a field, so that it cannot fake a second line; [`write()`] prepares a message. [`shield`] is the
//! safety net below both: [`super::sink`] and [`super::stderr`] pass everything through it that goes to a terminal, and
//! clippy forbids any other access to stdout and stderr (`clippy.toml`), so that even a field which nobody sanitised is
//! harmless.

/// How control characters in a message are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controls {
    Keep,
    /// Make them visible as `cat -v` does; colours pass.
    Show,
    /// Remove them together with their sequences.
    Strip,
}

/// The syntax of bytes for a terminal, which determines how an unsafe character is made visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Lines of text, possibly coloured.
    Text,
    /// One line of text, possibly coloured. A newline in it is untrusted.
    Line,
    /// JSON. Unsafe characters become JSON escapes, so that the value stays the same.
    Json,
    /// Messages that the terminal may interpret (`--ansi keep`). The fields around them are already sanitised.
    Verbatim,
}

/// Appends the bytes, and makes everything visible that a terminal would interpret.
pub(crate) fn shield(bytes: &[u8], form: Form, out: &mut Vec<u8>) {
    if form == Form::Verbatim {
        return out.extend_from_slice(bytes);
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = copy_printable(rest, out);
        let our_colour = sgr(rest).filter(|_| form != Form::Json);
        if let Some(len) = our_colour {
            out.extend_from_slice(&rest[..len]);
            rest = &rest[len..];
        } else if let (Some(behind), true) = (rest.strip_prefix(b"\n"), form != Form::Line) {
            out.push(b'\n');
            rest = behind;
        } else if !rest.is_empty() {
            rest = match form {
                Form::Json => escape_character(rest, out),
                _ => show_character(rest, out),
            };
        }
    }
}

const RESET: &[u8] = b"\x1b[0m";

/// Appends a container's message, with its control characters treated as `controls` says.
pub(super) fn write(message: &[u8], controls: Controls, out: &mut Vec<u8>) {
    match controls {
        Controls::Keep => out.extend_from_slice(message),
        // A container with a TTY ends its lines with CR LF.
        Controls::Show => show(message.strip_suffix(b"\r").unwrap_or(message), out),
        Controls::Strip => strip(message.strip_suffix(b"\r").unwrap_or(message), out),
    }
}

/// Copies the leading printable ASCII characters, and returns the rest.
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
        } else if !rest.is_empty() {
            rest = show_character(rest, out);
        }
    }
    if is_coloured {
        // Otherwise the colour would extend to the prefix of the next line.
        out.extend_from_slice(RESET);
    }
}

/// The length of the SGR sequence at the start, if there is one.
fn sgr(bytes: &[u8]) -> Option<usize> {
    let parameters = bytes.strip_prefix(b"\x1b[")?;
    let len = parameters.iter().take_while(|byte| matches!(byte, b'0'..=b';')).count();
    (parameters.get(len) == Some(&b'm')).then_some(len + 3)
}

/// Makes the first character visible as `cat -v` does; unsafe characters beyond ASCII appear as their
/// code. Returns the rest.
fn show_character<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let (character, rest) = first(bytes);
    match character {
        Some('\t') => out.push(b'\t'),
        Some(control @ ('\0'..='\x1f' | '\x7f')) => {
            // The caret notation flips one bit.
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

/// Escapes the first character as in a JSON string, and returns the rest. Our JSON is always valid UTF-8; should a bug
/// produce an invalid byte, it must not reach the terminal either.
fn escape_character<'a>(bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let (character, rest) = first(bytes);
    match character.unwrap_or(char::REPLACEMENT_CHARACTER) {
        character if character < ' ' || is_unsafe(character) => {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
        character => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
    }
    rest
}

/// Whether a character beyond printable ASCII is interpreted by a terminal, changes how its line reads, or is
/// invisible: DEL and C1; the bidirectional controls; the line and paragraph separators; zero-width spaces, the byte
/// order mark, invisible operators, interlinear annotations, and tags, which can hide whole sentences. The zero-width
/// joiners count as safe, because many scripts and emoji need them.
pub(super) fn is_unsafe(character: char) -> bool {
    matches!(character,
        '\u{7f}'..='\u{9f}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// Splits off the first character; `None` stands for a byte that starts no valid character.
fn first(bytes: &[u8]) -> (Option<char>, &[u8]) {
    let longest = bytes.len().min(4);
    let character = (1..=longest).find_map(|len| std::str::from_utf8(&bytes[..len]).ok()?.chars().next());
    let len = character.map_or(1, char::len_utf8);
    (character, bytes.get(len..).unwrap_or_default())
}

/// Removes what a terminal would interpret. A removal can join the parts of a broken character to a valid one, so this
/// repeats until nothing more is removed.
fn strip(message: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut is_stable = strip_once(message, out);
    while !is_stable {
        let stripped = out.split_off(start);
        is_stable = strip_once(&stripped, out);
    }
}

/// Removes unsafe characters once. Returns whether the result is final: nothing was removed, or it
/// contains no broken character.
fn strip_once(message: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut rest, mut has_broken) = (message, false);
    let start = out.len();
    while !rest.is_empty() {
        rest = copy_printable(rest, out);
        if let Some(len) = sequence(rest) {
            rest = &rest[len..];
            continue;
        }
        let (symbol, behind) = Symbol::first(rest);
        let is_dropped = match symbol {
            Symbol::Character('\t') => false,
            Symbol::Character(character) => character < ' ' || is_unsafe(character),
            // A terminal in an eight-bit mode interprets single bytes as C1 controls.
            Symbol::Byte(byte) => byte < 0xa0,
        };
        if !is_dropped {
            has_broken |= matches!(symbol, Symbol::Byte(_));
            out.extend_from_slice(&rest[..rest.len() - behind.len()]);
        }
        rest = behind;
    }
    !has_broken || out.len() - start == message.len()
}

/// The next unit that a terminal reads.
#[derive(Clone, Copy)]
enum Symbol {
    Character(char),
    /// A byte that belongs to no valid character.
    Byte(u8),
}

impl Symbol {
    fn first(bytes: &[u8]) -> (Symbol, &[u8]) {
        let (character, rest) = first(bytes);
        let byte = bytes.first().copied().unwrap_or_default();
        (character.map_or(Symbol::Byte(byte), Symbol::Character), rest)
    }

    /// If this is a C1 control in either form, the letter of its equivalent ESC sequence: U+009B and the single byte
    /// 0x9b both mean `ESC [`.
    fn as_escape(self) -> Option<u8> {
        let code = match self {
            Symbol::Character(character) => u8::try_from(u32::from(character)).ok()?,
            Symbol::Byte(byte) => byte,
        };
        (0x80..0xa0).contains(&code).then(|| code - 0x40)
    }
}

/// The length of the sequence at the start, whether ESC or a C1 control introduces it: a CSI sequence extends to its
/// final byte, an OSC or similar string to BEL or ST; others have two or three bytes. An incomplete CSI sequence ends
/// before the first byte that cannot belong to it.
fn sequence(bytes: &[u8]) -> Option<usize> {
    let (introducer, behind) = match bytes.strip_prefix(b"\x1b") {
        Some(behind) => match behind.split_first() {
            None => return Some(1),
            Some((&introducer, rest)) if introducer.is_ascii() => (introducer, rest),
            // The ESC stands alone.
            Some(_) => return Some(1),
        },
        None => {
            let (symbol, behind) = Symbol::first(bytes);
            (symbol.as_escape().filter(|_| !bytes.is_empty())?, behind)
        }
    };
    let head = bytes.len() - behind.len();
    let len = match introducer {
        b'[' => {
            let parameters = behind.iter().take_while(|byte| (0x20..0x40).contains(*byte)).count();
            parameters + usize::from(behind.get(parameters).is_some_and(|byte| (0x40..0x7f).contains(byte)))
        }
        b']' | b'P' | b'X' | b'^' | b'_' => end_of_string(behind),
        0x20..0x30 => behind.first().map_or(0, |byte| usize::from((0x30..0x7f).contains(byte))),
        // ESC before another control character stands alone.
        0..0x20 | 0x7f => return Some(1),
        _ => 0,
    };
    Some(head + len)
}

/// The length of the string that OSC, DCS, SOS, PM or APC introduced: it ends after BEL, after ST in any of its forms,
/// or with the message.
fn end_of_string(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (symbol, behind) = Symbol::first(rest);
        match symbol {
            Symbol::Character('\x07') => return bytes.len() - behind.len(),
            Symbol::Character('\x1b') if behind.starts_with(b"\\") => return bytes.len() - behind.len() + 1,
            symbol if symbol.as_escape() == Some(b'\\') => return bytes.len() - behind.len(),
            _ => rest = behind,
        }
    }
    bytes.len()
}

/// Makes untrusted text (a name, a label, an error of the daemon) safe for display on a single line.
pub(crate) fn safe(text: &str) -> String {
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
    fn controls_are_made_visible_or_removed() {
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
            ("c1 \u{9b}2J".as_bytes(), "c1 \\u009b2J", "c1 "),
            ("bidi \u{202e}x".as_bytes(), "bidi \\u202ex", "bidi x"),
            ("ümlaut 😀 e\u{301}".as_bytes(), "ümlaut 😀 e\u{301}", "ümlaut 😀 e\u{301}"),
            (b"bad \xff\xc3(", "bad \\xff\\xc3(", "bad \u{fffd}\u{fffd}("),
            (b"\x1b", "^[", ""),
            (b"\x1b[", "^[[", ""),
            // An incomplete sequence takes no text with it.
            ("\x1b[\u{fc}bung".as_bytes(), "^[[\u{fc}bung", "\u{fc}bung"),
            (b"\x1b[3\x1b[31mx", "^[[3\x1b[31mx\x1b[0m", "x"),
            (b"\x1b\nx", "^[^Jx", "x"),
            // C1 as single bytes, and the sequences that they introduce.
            (b"a\x9b2Jb\x9b1;31mc", "a\\x9b2Jb\\x9b1;31mc", "abc"),
            (b"a\x9d0;title\x9cb", "a\\x9d0;title\\x9cb", "ab"),
            (b"a\x9d0;title\x07b", "a\\x9d0;title^Gb", "ab"),
            (b"a\x9d0;title\x1b\\b", "a\\x9d0;title^[\\b", "ab"),
            (
                b"a\x90q\x9cb\x98s\x9cc\x9ep\x9cd\x9fa\x9ce",
                "a\\x90q\\x9cb\\x98s\\x9cc\\x9ep\\x9cd\\x9fa\\x9ce",
                "abcde",
            ),
            (b"next\x85line \x80 \x9c", "next\\x85line \\x80 \\x9c", "nextline  "),
            // C1 as a character.
            (
                "a\u{9d}0;t\u{fc}\u{9c}b\u{9b}31mc\u{85}".as_bytes(),
                "a\\u009d0;t\u{fc}\\u009cb\\u009b31mc\\u0085",
                "abc",
            ),
            // The last byte of these characters equals a C1 control.
            ("\u{c5b}\u{1b5b}\u{dc}".as_bytes(), "\u{c5b}\u{1b5b}\u{dc}", "\u{c5b}\u{1b5b}\u{dc}"),
            (
                "a\u{200b}b\u{feff}c\u{2066}d\u{61c}e\u{e0041}".as_bytes(),
                "a\\u200bb\\ufeffc\\u2066d\\u061ce\\ue0041",
                "abcde",
            ),
            (
                "\u{1f469}\u{200d}\u{1f52c} \u{646}\u{200c}\u{647}".as_bytes(),
                "\u{1f469}\u{200d}\u{1f52c} \u{646}\u{200c}\u{647}",
                "\u{1f469}\u{200d}\u{1f52c} \u{646}\u{200c}\u{647}",
            ),
            // Removing the sequence joins the parts of a character.
            (b"a\xef\x1b[m\xbb\xbfb", "a\\xef\x1b[m\\xbb\\xbfb\x1b[0m", "ab"),
            (b"\x1b]", "^[]", ""),
        ] {
            let shown = shown.replace("\\u007f", "^?");
            assert_eq!(written(message, Controls::Show), shown, "{message:?}");
            assert_eq!(written(message, Controls::Strip), stripped, "{message:?}");
            assert_eq!(written(message, Controls::Keep).as_bytes(), String::from_utf8_lossy(message).as_bytes());
        }
    }

    fn shielded(bytes: &[u8], form: Form) -> Vec<u8> {
        let mut out = Vec::new();
        shield(bytes, form, &mut out);
        out
    }

    /// Newlines are allowed in text but not in a single line, colours pass except in JSON, and JSON keeps its value.
    #[test]
    fn each_form_shows_controls_in_its_own_syntax() {
        let hostile = "a\tb\nc\u{9d}0;X\u{9c}\x1b[31md\x1b]0;t\x07\u{202e}\u{e0041}\x7fe\r";
        for (form, expected) in [
            (Form::Text, "a\tb\nc\\u009d0;X\\u009c\x1b[31md^[]0;t^G\\u202e\\ue0041^?e^M"),
            (Form::Line, "a\tb^Jc\\u009d0;X\\u009c\x1b[31md^[]0;t^G\\u202e\\ue0041^?e^M"),
            (
                Form::Json,
                "a\\u0009b\nc\\u009d0;X\\u009c\\u001b[31md\\u001b]0;t\\u0007\\u202e\\udb40\\udc41\\u007fe\\u000d",
            ),
            (Form::Verbatim, hostile),
        ] {
            assert_eq!(String::from_utf8(shielded(hostile.as_bytes(), form)).unwrap(), expected, "{form:?}");
        }
        assert_eq!(shielded(b"\x9b2J\xff", Form::Text), b"\\x9b2J\\xff");
        assert_eq!(shielded(b"\x9b", Form::Json), "\u{fffd}".as_bytes());
        assert_eq!(safe("a\nb\x1b[31m\u{9b}"), "a^Jb^[[31m\\u009b");
    }

    /// Whether a terminal would interpret any of it, apart from newlines, tabs, and colours where they are allowed.
    fn is_interpreted(bytes: &[u8], may_colour: bool) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            if let Some(len) = sgr(rest).filter(|_| may_colour) {
                rest = &rest[len..];
                continue;
            }
            let (symbol, behind) = Symbol::first(rest);
            let is_interpreted = match symbol {
                Symbol::Character('\t' | '\n') => false,
                Symbol::Character(character) => character < ' ' || is_unsafe(character),
                Symbol::Byte(byte) => byte < 0xa0,
            };
            if is_interpreted {
                return true;
            }
            rest = behind;
        }
        false
    }

    /// Bytes with many controls and broken characters.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => any::<u8>().prop_map(|byte| vec![byte]),
            2 => prop::sample::select(&b"\x1b[]\\mP;0J\x07\x9b\x9c\x9d\xc2\xe2\xef\xbb\xbf\x80\xae"[..]).prop_map(|byte| vec![byte]),
            2 => any::<char>().prop_map(|character| character.to_string().into_bytes()),
            1 => (0x7f_u32..0xa0).prop_map(|code| char::from_u32(code).unwrap().to_string().into_bytes()),
            1 => (0x2000_u32..0x2070).prop_map(|code| char::from_u32(code).unwrap().to_string().into_bytes()),
        ];
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// No form lets anything through that a terminal interprets, and shielding twice changes nothing.
        #[test]
        fn no_form_lets_a_control_through(bytes in hostile(), form in prop::sample::select(&[Form::Text, Form::Line, Form::Json][..])) {
            let once = shielded(&bytes, form);
            prop_assert!(!is_interpreted(&once, form != Form::Json), "{:?}", once.escape_ascii().to_string());
            prop_assert_eq!(shielded(&once, form), once);
        }

        /// Any message is safe once its controls are stripped or made visible.
        #[test]
        fn no_message_is_interpreted(bytes in hostile(), strip: bool) {
            let mut out = Vec::new();
            write(&bytes, if strip { Controls::Strip } else { Controls::Show }, &mut out);
            prop_assert!(!is_interpreted(&out, !strip), "{:?}", out.escape_ascii().to_string());
        }

        /// JSON stays JSON with the same value.
        #[test]
        fn json_keeps_its_value(text in "(?s)[\\x00-\\x20\\x7f-\\xa0\\u{2000}-\\u{2070}\\u{fff0}-\\u{ffff}\\u{e0000}-\\u{e007f}a-c\"\\\\]{0,40}") {
            let json = serde_json::to_string(&text).unwrap();
            let shown = shielded(json.as_bytes(), Form::Json);
            prop_assert_eq!(serde_json::from_slice::<String>(&shown).unwrap(), text);
        }

        /// The only controls in a written message are tabs and the ESC of a colour.
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
