#!/usr/bin/env bash
# Writes fuzz/seeds/: for each target some valid and damaged inputs, from tests/chatter and by hand. They are committed
# because the main test suite uses them too. Run this again when a target interprets its bytes differently.
set -euo pipefail
cd "$(dirname "$0")"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rustc -O --edition 2024 -o "$work/chatter" ../tests/chatter/main.rs
rm -rf seeds

# seed TARGET NAME: writes standard input as a seed.
seed() { mkdir -p "seeds/$1" && cat >"seeds/$1/$2"; }
# bytes NUMBERS: prints the bytes with these values.
bytes() { local n; for n in "$@"; do printf '%b' "\\x$(printf %02x "$n")"; done; }
big_end() { bytes $(($1 >> 24 & 255)) $(($1 >> 16 & 255)) $(($1 >> 8 & 255)) $(($1 & 255)); }
varint() { local n=$1; while ((n > 127)); do bytes $((n & 127 | 128)); n=$((n >> 7)); done; bytes "$n"; }
# Stores standard input in the file $kept and sets $length.
keep() { kept=$(mktemp -p "$work"); cat >"$kept"; length=$(stat -c %s "$kept"); }
# field NUMBER: prints standard input as a protobuf field of type bytes.
field() { keep; bytes $(($1 << 3 | 2)); varint "$length"; cat "$kept"; }
# Prints standard input between two copies of its length, as the `local` driver does.
framed() { keep; big_end "$length"; cat "$kept"; big_end "$length"; }
# frame TYPE: prints standard input as a frame of the logs API.
frame() { keep; bytes "$1" 0 0 0; big_end "$length"; cat "$kept"; }
# entry SOURCE LINE [NUMBERS]: prints an entry of a `local` log, with extra bytes at its end.
entry() {
    printf %s "$1" | field 1
    bytes 16 && varint 1795215653037882171
    printf %s "$2" | field 3
    bytes "${@:3}"
}
# records OPTIONS: prints records of the json-file driver, all with the same time; OPTIONS are for chatter.
records() {
    "$work/chatter" --records "$@" | sed 's/"time":"[^"]*"/"time":"2026-11-20T23:00:53.03788217Z"/'
}

time=2026-11-20T23:00:53.037882171Z
attrs='{"log":"with \\ and \" \u2028\r\n","stream":"stderr","attrs":{"tag":"a\",\"b"},"time":"2026-11-20T23:00:53Z"}'

number=0
while read -r line; do
    number=$((number + 1))
    printf '%s\n' "$line" | seed json_record "text-$number"
done < <(records --shape text --count 8)
records --shape json --count 1 | seed json_record json
printf '%s\n' "$attrs" | seed json_record attrs
printf '{"log":"no newline","stream":"stdout","time":"%s"}' $time | seed json_record piece
printf '{ "time": "2026-11-20T23:00:53+01:00", "stream": "stderr", "log": "other \\ud83d\\ude00\\n" }' | seed json_record other

{ bytes 7 0 31 200 40 0; records --shape text --count 4; printf '%s\n' "$attrs"; } | seed json_block text
{
    bytes 64 3 64 9 6 1
    printf '{"log":"torn in the midd'
    records --count 1
    printf '\0\0\0\0'
    records --count 2
    printf '{"log":"a ","stream":"stdout","time":"%s"}\n{"log":"line in two\\n","stream":"stdout","time":"%s"}\nnothing\n' $time $time
    printf '{"log":"\377"}\n{"log":"the last has no end'
} | seed json_block damaged

# The last piece of a line, an earlier piece, an entry with attributes, and fields that no version defines.
piece() { { bytes 8 1; printf 0123456789abcdef | field 2; bytes 24 2; } | field 5; }
entry stdout 'a line' | seed local_record line
entry stderr '' | seed local_record empty
{ entry stdout 'the end of a line' 32 1; piece; } | seed local_record last
{ entry stdout 'not the end of a line' 32 1; bytes 42 2 24 1; } | seed local_record piece
{ entry stderr 'from 29.5'; { printf tag | field 1; printf web | field 2; } | field 6; } | seed local_record attrs
entry stderr 'from later' 57 1 2 3 4 5 6 7 8 69 1 2 3 4 | seed local_record unknown
{ entry stdout 'once'; entry stderr 'and again'; } | seed local_record twice

{
    bytes 9 0 50 3 40 0 0
    for word in one two three; do entry stdout "$word" | framed; done
    head -c 20 <(entry stdout torn | framed)
    for word in four five; do entry stderr "$word" | framed; done
    { entry stdout 'last' 32 1; piece; } | framed
    printf 'no record'
} | seed local_block raw
bytes 7 1 30 90 20 5 1 0 6 104 101 108 108 111 10 65 5 119 111 114 108 100 7 4 1 2 3 4 2 3 97 98 99 26 3 100 101 102 192 0 |
    seed local_block built
bytes 200 1 2 3 8 0 1 7 5 0 0 0 40 1 0 3 97 98 99 7 3 0 0 1 1 3 97 98 99 | seed local_block built-torn

{
    bytes 1 9 60 2 100 0
    printf '%s one\n' $time | frame 1
    printf '%s half ' $time | frame 2
    printf '%s two\n' $time | frame 1
    printf '%s and half\n' $time | frame 2
    printf 'Error grabbing logs: gone\n' | frame 3
} | seed frames raw
{ bytes 1 9 60 2 100 0; printf '%s one\r\n%s two\r%s three\r\n%s' $time $time $time $time; } | seed frames terminal
bytes 1 0 9 200 40 2 0 5 104 101 108 108 111 11 2 97 98 1 3 99 100 101 3 0 248 4 103 111 110 101 1 1 97 | seed frames built
bytes 90 255 255 255 100 1 32 5 104 101 108 108 111 1 2 97 98 35 3 99 100 101 | seed frames built-terminal

event='{"status":"start","id":"4ac9","from":"busybox:1","Type":"container","Action":"start","Actor":{"ID":"4ac9","Attributes":{"image":"busybox:1","name":"web-1"}},"scope":"local","time":1795215653,"timeNano":1795215653037882171}'
{ bytes 50 0 1 200; printf '%s\n\036%s\r\n\n%s' "$event" "$event" "$event"; } | seed events docker
{
    bytes 9 9 9 9
    printf '%s\n' '{"Type":"volume","Action":"create","Actor":{"ID":"v","Attributes":{}},"timeNano":9}' garbage \
        '{"Type":"container","Action":"died","Actor":{"ID":"c"},"time":7}' \
        '{"Type":"container","Action":"health_status","HealthStatus":"healthy","Actor":{"ID":"c"},"timeNano":5}' \
        '{"status":"die","id":"c","from":"busybox","time":7}'
} | seed events others

{ bytes 0 40 3; records --count 3; } | seed gzip json
{ bytes 9 7 90; records --shape json --count 2; } | seed gzip with-time
{ bytes 17 30 9; for word in one two; do entry stdout "$word" | framed; done; } | seed gzip local
{ bytes 6 30 0; records --count 3 | gzip -n; records --count 1 | gzip -n; } | seed gzip packed

printf 'plain words, \042quotes\042, \\ and \t\r\n\001\177 \303\251 \342\200\250' | seed escape text
printf 'no text: \377\376 \303( \342\202 \360\237\246 end' | seed escape bytes
printf '%s' 'plain \"quotes\" \\ \/ \b\f\n\r\t \u0041\u00e9\u2028 \ud83d\ude00' | seed unescape all
printf '%s' 'lone \ud83d and \ude00x \ud83d\ud83d\ude00 \u12' | seed unescape halves

printf '%s\n' 1970-01-01T00:00:00Z $time 2026-11-20T23:00:53.5Z 2026-11-20T23:01:00Z 2024-02-29T23:59:59.999999999Z |
    seed timestamp engine
printf '%s\n' 2026-11-20T23:00:60Z 2026-02-29T00:00:00Z 2026-11-20t23:00:53z 2026-11-20T23:00:53+01:00 9999-12-31T00:00:00Z \
    1677-09-21T00:12:43.145224192Z 2262-04-11T23:47:16.854775807Z | seed timestamp others
