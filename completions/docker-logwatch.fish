# Completion of docker-logwatch in fish. It asks the program, as the docker CLI does (`__complete`), so that it knows
# all options and even the names of live containers. The answer has one candidate per line, with its description after a tab,
# and a last line `:N` that says what else to offer.

function __docker_logwatch
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l answer ($before[1] __complete $before[2..-1] $current 2>/dev/null)
    or return
    # fish completes the whole argument, including the option's name.
    set -l flag (string match -r -- '^-[^=]*=' $current)
    set -l value (string replace -- "$flag" '' $current)
    set -l candidates $answer[1..-2]
    switch $answer[-1]
        case :0
            set candidates (__fish_complete_path $value)
        case :16
            set candidates (__fish_complete_directories $value)
    end
    for candidate in $candidates
        echo "$flag$candidate"
    end
end

complete -c docker-logwatch -f -a '(__docker_logwatch)'
