# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_docker_logwatch_global_optspecs
    string join \n config-file= state= color= v/verbose q/quiet log-format= H/host= c/context= config= tls= tlsverify= tlscacert= tlscert= tlskey= h/help V/version
end

function __fish_docker_logwatch_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_docker_logwatch_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_docker_logwatch_using_subcommand
    set -l cmd (__fish_docker_logwatch_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -l config-file -d 'Configuration [default: logwatch.yaml in docker\'s configuration folder]' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -l state -d 'What is kept between runs [default: ~/.local/state/docker-logwatch/state.db]' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -l color -d 'Colour names and notices' -r -f -a "auto\t'On a terminal'
always\t'In any case'
never\t'In no case'"
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -l log-format -d 'Form of our own diagnostics on stderr' -r -f -a "text\t'One line each'
json\t'One object a line'"
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -s H -l host -d 'Engine, such as `unix:///run/docker.sock` [default: as docker finds it]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -s c -l context -d 'Docker context to use, instead of `DOCKER_HOST` and the current one' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -l config -d 'Docker\'s configuration directory [default: ~/.docker]' -r -f -a "(__fish_complete_directories)"
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -l tls -d 'Use TLS, without verifying the engine' -r -f -a "true\t''
false\t''"
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -l tlsverify -d 'Use TLS and verify the engine' -r -f -a "true\t''
false\t''"
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -l tlscacert -d 'Trust engines certified by this CA only' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -l tlscert -d 'Our certificate' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -l tlskey -d 'Our key' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -s v -l verbose -d 'Say more on stderr; `-vv` still more'
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -s q -l quiet -d 'No notices and no status line'
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -s V -l version -d 'Print version'
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -f -a "watch" -d 'Follow the logs of every matching container, including those that start later'
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -f -a "events" -d 'Print the engine\'s events, without gaps'
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -f -a "pool" -d 'Check the connection pool: health, circuit breakers, latency under load'
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -f -a "reconcile" -d 'Bring the inventory of containers, volumes, mounts and positions in line with the engine'
complete -c docker-logwatch -n "__fish_docker_logwatch_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s f -l filter -d 'Only containers that `docker ps --filter` would list' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s p -l project -d 'Only containers of this Compose project' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l service -d 'Only instances of this Compose service' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s E -l exclude-container -d 'Leave out containers whose name matches' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l since -d 'Lines from here on: `10m`, `1h30m`, a date or time, Unix seconds' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l until -d 'Lines up to here, written as for `--since`' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s n -l tail -d 'Lines of history, or `all` [default: 10; all with `--since`, `--no-follow`]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l stream -d 'Which of a container\'s streams' -r -f -a "stdout\t'Standard output alone'
stderr\t'Standard error alone'
all\t'Both'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s i -l include -d 'Only lines whose message matches; repeatable, one match is enough' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s e -l exclude -d 'No lines whose message matches; repeatable' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l source -d 'How containers are read [default: auto]' -r -f -a "auto\t'The log file where it can be opened, else the stream'
file\t'Log files only'
stream\t'One long API stream per container'
rotate\t'API streams, each renewed after `--rotate-interval`'
poll\t'An API read every `--poll-interval`'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l rotate-interval -d 'With `--source rotate`: renew each stream so often [default: 30s]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l poll-interval -d 'With `--source poll`: read each container so often [default: 2s]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l max-line-size -d 'Cut longer messages into several records [default: 1MiB]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l format -d 'Form of a line' -r -f -a "text\t'`NAME | MESSAGE`, aligned, and coloured on a terminal'
json\t'One object a line'
raw\t'The message alone'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l ansi -d 'What becomes of escape sequences in messages' -r -f -a "auto\t'On a terminal all but colours are shown, not obeyed; else kept'
keep\t'Kept as they are'
strip\t'Removed'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s o -l output -d 'Append to FILE instead of stdout' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l resume -d 'Go on where the last run of this name stopped [default name: default]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l listen -d 'Serve Prometheus metrics and health at this address' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l config-file -d 'Configuration [default: logwatch.yaml in docker\'s configuration folder]' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l state -d 'What is kept between runs [default: ~/.local/state/docker-logwatch/state.db]' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l color -d 'Colour names and notices' -r -f -a "auto\t'On a terminal'
always\t'In any case'
never\t'In no case'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l log-format -d 'Form of our own diagnostics on stderr' -r -f -a "text\t'One line each'
json\t'One object a line'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s H -l host -d 'Engine, such as `unix:///run/docker.sock` [default: as docker finds it]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s c -l context -d 'Docker context to use, instead of `DOCKER_HOST` and the current one' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l config -d 'Docker\'s configuration directory [default: ~/.docker]' -r -f -a "(__fish_complete_directories)"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l tls -d 'Use TLS, without verifying the engine' -r -f -a "true\t''
false\t''"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l tlsverify -d 'Use TLS and verify the engine' -r -f -a "true\t''
false\t''"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l tlscacert -d 'Trust engines certified by this CA only' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l tlscert -d 'Our certificate' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l tlskey -d 'Our key' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s a -l all -d 'Stopped containers\' history too'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l no-follow -d 'Read what is there, then exit'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l dry-run -d 'Tell which containers match and how each would be read, then exit'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s t -l timestamps -d 'Begin each line with its time'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l metadata -d 'Add labels, networks and state to JSON records'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -l lifecycle -d 'Add lifecycle records (start, die, ...) to JSON'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s v -l verbose -d 'Say more on stderr; `-vv` still more'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s q -l quiet -d 'No notices and no status line'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -s f -l filter -d 'Only events that `docker events --filter` would show' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l since -d 'Events from here on: `10m`, `1h30m`, a date or time, Unix seconds' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l until -d 'Events up to here, written as for `--since`; then exit' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l count -d 'Exit after so many events' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l timeout -d 'Exit after so long; with `--count` not reached the exit code is 4' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l format -d 'Form of a line' -r -f -a "text\t'The line that `docker events` prints'
json\t'The object of `docker events --format \'{{json .}}\'`'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l config-file -d 'Configuration [default: logwatch.yaml in docker\'s configuration folder]' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l state -d 'What is kept between runs [default: ~/.local/state/docker-logwatch/state.db]' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l color -d 'Colour names and notices' -r -f -a "auto\t'On a terminal'
always\t'In any case'
never\t'In no case'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l log-format -d 'Form of our own diagnostics on stderr' -r -f -a "text\t'One line each'
json\t'One object a line'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -s H -l host -d 'Engine, such as `unix:///run/docker.sock` [default: as docker finds it]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -s c -l context -d 'Docker context to use, instead of `DOCKER_HOST` and the current one' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l config -d 'Docker\'s configuration directory [default: ~/.docker]' -r -f -a "(__fish_complete_directories)"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l tls -d 'Use TLS, without verifying the engine' -r -f -a "true\t''
false\t''"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l tlsverify -d 'Use TLS and verify the engine' -r -f -a "true\t''
false\t''"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l tlscacert -d 'Trust engines certified by this CA only' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l tlscert -d 'Our certificate' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l tlskey -d 'Our key' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -l no-reconnect -d 'Exit with code 3 when the stream is lost, instead of going on when it is back'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -s v -l verbose -d 'Say more on stderr; `-vv` still more'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -s q -l quiet -d 'No notices and no status line'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l size -d 'Open so many clients, 1000 at most [default: the configured number, 2]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l requests -d 'Put a load of so many requests through the pool' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l concurrency -d 'So many of them at one time [default: 8]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l format -d 'Form of the report' -r -f -a "table\t'For people'
json\t'One object'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l config-file -d 'Configuration [default: logwatch.yaml in docker\'s configuration folder]' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l state -d 'What is kept between runs [default: ~/.local/state/docker-logwatch/state.db]' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l color -d 'Colour names and notices' -r -f -a "auto\t'On a terminal'
always\t'In any case'
never\t'In no case'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l log-format -d 'Form of our own diagnostics on stderr' -r -f -a "text\t'One line each'
json\t'One object a line'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -s H -l host -d 'Engine, such as `unix:///run/docker.sock` [default: as docker finds it]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -s c -l context -d 'Docker context to use, instead of `DOCKER_HOST` and the current one' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l config -d 'Docker\'s configuration directory [default: ~/.docker]' -r -f -a "(__fish_complete_directories)"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l tls -d 'Use TLS, without verifying the engine' -r -f -a "true\t''
false\t''"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l tlsverify -d 'Use TLS and verify the engine' -r -f -a "true\t''
false\t''"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l tlscacert -d 'Trust engines certified by this CA only' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l tlscert -d 'Our certificate' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l tlskey -d 'Our key' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -l check -d 'Say nothing when all is well; else one line, and exit with 4 where clients are unhealthy'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -s v -l verbose -d 'Say more on stderr; `-vv` still more'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -s q -l quiet -d 'No notices and no status line'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand pool" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l format -d 'Form of the report' -r -f -a "table\t'For people'
json\t'One object'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l config-file -d 'Configuration [default: logwatch.yaml in docker\'s configuration folder]' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l state -d 'What is kept between runs [default: ~/.local/state/docker-logwatch/state.db]' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l color -d 'Colour names and notices' -r -f -a "auto\t'On a terminal'
always\t'In any case'
never\t'In no case'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l log-format -d 'Form of our own diagnostics on stderr' -r -f -a "text\t'One line each'
json\t'One object a line'"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -s H -l host -d 'Engine, such as `unix:///run/docker.sock` [default: as docker finds it]' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -s c -l context -d 'Docker context to use, instead of `DOCKER_HOST` and the current one' -r
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l config -d 'Docker\'s configuration directory [default: ~/.docker]' -r -f -a "(__fish_complete_directories)"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l tls -d 'Use TLS, without verifying the engine' -r -f -a "true\t''
false\t''"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l tlsverify -d 'Use TLS and verify the engine' -r -f -a "true\t''
false\t''"
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l tlscacert -d 'Trust engines certified by this CA only' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l tlscert -d 'Our certificate' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l tlskey -d 'Our key' -r -F
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l dry-run -d 'Tell what differs, write nothing'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l check -d 'As `--dry-run`; exit code 4 when anything differs'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -l details -d 'Tell each change'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -s v -l verbose -d 'Say more on stderr; `-vv` still more'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -s q -l quiet -d 'No notices and no status line'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand reconcile" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand help; and not __fish_seen_subcommand_from watch events pool reconcile help" -f -a "watch" -d 'Follow the logs of every matching container, including those that start later'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand help; and not __fish_seen_subcommand_from watch events pool reconcile help" -f -a "events" -d 'Print the engine\'s events, without gaps'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand help; and not __fish_seen_subcommand_from watch events pool reconcile help" -f -a "pool" -d 'Check the connection pool: health, circuit breakers, latency under load'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand help; and not __fish_seen_subcommand_from watch events pool reconcile help" -f -a "reconcile" -d 'Bring the inventory of containers, volumes, mounts and positions in line with the engine'
complete -c docker-logwatch -n "__fish_docker_logwatch_using_subcommand help; and not __fish_seen_subcommand_from watch events pool reconcile help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
