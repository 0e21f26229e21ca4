# Completion of docker-logwatch in bash. It asks the program, as the docker CLI does (`__completeNoDesc`), so that it knows
# all options and even the names of live containers. The answer has one candidate per line, without descriptions,
# and a last line `:N` that says what else to offer.

_docker_logwatch() {
    local line=${COMP_LINE:0:COMP_POINT} words=() word
    # Readline also splits at `=` and `:`. Join words that no blank separates.
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ ${#words[@]} -eq 0 || $line == [[:blank:]]* ]]; then
            words+=("$word")
        else
            words[${#words[@]} - 1]+=$word
        fi
        line=${line#"${line%%[![:blank:]]*}"}
        line=${line#"$word"}
    done
    local current=${words[${#words[@]} - 1]} answer
    answer=$("${words[0]/#\~/$HOME}" __completeNoDesc "${words[@]:1}" 2>/dev/null) || return
    # The candidates are values without the option's name, and without the part that readline takes for earlier words.
    [[ $current == -*=* ]] && current=${current#*=}
    local kept=
    [[ $current == *[=:]* ]] && kept=${current%"${current##*[=:]}"}
    COMPREPLY=()
    while IFS= read -r word; do
        case $word in
            :0) compopt -o default ;;
            :4) ;;
            :6) compopt -o nospace ;;
            :16) compopt -o dirnames ;;
            *) word=${word%%$'\t'*} && word=${word#"$kept"} && COMPREPLY+=("$(printf %q "$word")") ;;
        esac
    done <<<"$answer"
}

complete -F _docker_logwatch docker-logwatch
