# bash completion for tidemark

_tidemark_points()
{
    local repo=${TIDEMARK_REPO-} i
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == --repo ]] && repo=${COMP_WORDS[i + 1]}
    done
    [[ -n $repo ]] || return
    # Only names of plain characters: nothing from a repository is evaluated.
    tidemark points --repo "$repo" 2>/dev/null |
        sed -n 's/^\([A-Za-z0-9._-]*@[0-9a-f]*\) .*/\1/p'
}

# Directories: readline quotes what has spaces, and goes on behind a '/'.
_tidemark_directories()
{
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -d -- "$1")
}

# Readline may take the '@' of a point for the begin of a word: it then wants
# only what comes from there on.
_tidemark_refs()
{
    local word=${COMP_LINE:0:COMP_POINT} cut=
    word=${word##*[[:space:]]}
    [[ $word == *@* && $COMP_WORDBREAKS == *@* ]] && cut=${word%@*}
    mapfile -t COMPREPLY < <(compgen -W "$(_tidemark_points)" -- "$word")
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
}

_tidemark()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local commands='init backup points show restore verify doctor'
    local common='--json --quiet --debug --help' opts=

    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        mapfile -t COMPREPLY < <(compgen -W "$commands --version --help" -- "$cur")
        return
    fi
    case $prev in
    --repo | --to | --scratch)
        _tidemark_directories "$cur"
        return
        ;;
    --quiesce)
        mapfile -t COMPREPLY < <(compgen -W 'auto require off' -- "$cur")
        return
        ;;
    --format)
        mapfile -t COMPREPLY < <(compgen -W 'qcow2 raw' -- "$cur")
        return
        ;;
    --chunk-size)
        mapfile -t COMPREPLY < <(compgen -W '16K 32K 64K 128K 256K 512K 1M 2M 4M' -- "$cur")
        return
        ;;
    --name | --disk | --exclude | --compress | --threads)
        return
        ;;
    esac
    case ${COMP_WORDS[1]} in
    init) opts='--chunk-size' ;;
    backup)
        opts='--repo --name --full --disk --exclude --quiesce --scratch
              --compress --paranoid --threads'
        ;;
    points | show) opts='--repo' ;;
    restore)
        opts='--repo --to --format --disk --overwrite --threads'
        ;;
    verify) opts='--repo --threads' ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$opts $common" -- "$cur")
        return
    fi
    case ${COMP_WORDS[1]} in
    init) _tidemark_directories "$cur" ;;
    show | restore | verify) _tidemark_refs ;;
    esac
}

complete -F _tidemark tidemark
