# Completion of docker-logwatch in bash. What can stand somewhere only the program knows, down to the names of containers
# that live now, so it is asked as docker asks it: a candidate a line, its description behind a tab, and `:N` at the end.

_docker_logwatch() {
    local line=${COMP_LINE:0:COMP_POINT} words=() word
    # Readline cuts words at `=` and `:` as well; what no blank parts is one word.
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
    # A flag's own name is not part of what is completed, nor is what readline takes for words of their own.
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
