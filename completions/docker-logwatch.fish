# Completion of docker-logwatch in fish. What can stand somewhere only the program knows, down to the names of containers
# that live now, so it is asked as docker asks it: a candidate a line, its description behind a tab, and `:N` at the end.

function __docker_logwatch
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l answer ($before[1] __complete $before[2..-1] $current 2>/dev/null)
    or return
    # A flag's own name is part of what fish completes.
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
