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
    local commands='init backup points show restore verify check prune gc diff
                    stats key doctor'
    local common='--json --quiet --debug --help --passphrase-fd
                  --passphrase-command --paper-key-fd' opts=

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
    --name | --disk | --exclude | --tag | --compress | --threads | \
        --label | --kdf-memory | --*-fd | --*-command | --keep-* | \
        --rewrite | --fence-after | --sample | --limit-rate)
        return
        ;;
    esac
    case ${COMP_WORDS[1]} in
    init) opts='--chunk-size --encrypt --label --kdf-memory' ;;
    key)
        opts='--label --kdf-memory --new-passphrase-fd --new-passphrase-command'
        ;;
    backup)
        opts='--repo --name --full --disk --exclude --tag --quiesce --scratch
              --compress --paranoid --audit --threads --resume --hold'
        ;;
    points | show) opts='--repo' ;;
    restore)
        opts='--repo --to --format --disk --overwrite --threads'
        ;;
    verify)
        opts='--repo --structure --sample --limit-rate --resume --read-only
              --threads'
        ;;
    check) opts='--repo --repair --dry-run --threads' ;;
    prune)
        opts='--repo --keep-last --keep-hourly --keep-daily --keep-weekly
              --keep-monthly --keep-yearly --keep-within --keep-tag --remove
              --remove-last --ignore-clock --dry-run --gc'
        ;;
    gc) opts='--repo --dry-run --rewrite --fence-after' ;;
    diff) opts='--repo --disk' ;;
    stats) opts='--repo' ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$opts $common" -- "$cur")
        return
    fi
    case ${COMP_WORDS[1]} in
    init) _tidemark_directories "$cur" ;;
    key)
        if ((COMP_CWORD == 2)); then
            mapfile -t COMPREPLY < <(compgen -W 'list add remove passwd export' -- "$cur")
        else
            _tidemark_directories "$cur"
        fi
        ;;
    show | restore | verify | prune | diff | stats) _tidemark_refs ;;
    esac
}

complete -F _tidemark tidemark
