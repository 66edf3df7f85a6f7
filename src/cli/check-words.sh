# Part of `podvm` (shell), used before the installation is complete: checks a command line without
# Node, so that nothing is installed for a wrong command line or for help. The texts are those of help.txt, which is
# printed from the program itself.

help_file=$repo/src/cli/help.txt

# Prints the help of a command, as `podvm COMMAND --help` does.
help_of() { sed -n "/^== ${1:-podvm}\$/,/^== /{/^== /d;p;}" "$help_file"; }

# The second argument replaces the usual advice.
wrong() {
  say "$1"
  advice='See `podvm --help`, or `podvm COMMAND --help`.'
  printf '  fix: %s\n' "${2:-$advice}" >&2
  exit 2
}

# Prints what to type instead of a command of docker, podman or kubectl; nothing for any other word.
instead_of() {
  case $1 in *[!a-z\ -]*) return 0 ;; esac
  help_of :foreign | sed -n "s/^  $1: //p"
}

is_command() { grep -qxF -- "== $1" "$help_file"; }

# Tells whether the command has the option, and whether the option takes a value. Some commands also know options that they refuse
# with a reason of their own, which Node gives.
is_option() { { help_of "$command"; help_of "$command:refused"; } | grep -qE -- "^  (-., )?$1( |\$)|^  $1, "; }
takes_value() { help_of "$command" | grep -qE -- "^  ((-., )?$1|$1, --[a-z-]+) <"; }

# Sets `command`. Exits after an error message, help or the version.
check_words() {
  command=
  while [ $# -gt 0 ]; do
    case $1 in
      -h | --help) help_of "$command"; exit 0 ;;
      -V | -v | --version) sed -n 's/^  "version": "\(.*\)",$/\1/p' "$repo/package.json"; exit 0 ;;
      --) shift; break ;;
      --*=*) is_option "${1%%=*}" || wrong "unknown option '$1'" ;;
      -*)
        is_option "$1" || wrong "unknown option '$1'"
        if takes_value "$1"; then
          [ $# -gt 1 ] || wrong "option '$1' argument missing"
          shift
        fi
        ;;
      *) break ;;
    esac
    shift
  done
  [ $# -gt 0 ] || { help_of '' >&2; exit 2; }
  if [ "$1" = help ]; then
    shift
    if [ $# -gt 0 ] && ! is_command "$*"; then help_of '' >&2; exit 2; fi
    help_of "$*"
    exit 0
  fi
  is_command "$1" || wrong "unknown command '$1'" "$(instead_of "$1")"
  command=$1
  shift
  if grep -q "^== $command " "$help_file"; then # it has subcommands
    case ${1:-} in
      -h | --help) help_of "$command"; exit 0 ;;
      '') help_of "$command" >&2; exit 2 ;;
      help) help_of "$command${2:+ $2}"; exit 0 ;;
    esac
    is_command "$command $1" || wrong "unknown command '$1'" "$(instead_of "$command $1")"
    command="$command $1"
    shift
  fi
  check_operands "$@"
}

# Options may stand between operands, except in the command line of `exec` and after an image.
check_operands() {
  operands=0
  has_file_option=
  is_image=
  only_operands=
  needed=$(help_of "$command" | sed -n 1p | tr ' ' '\n' | sed -n 's/^<\([a-z]*\).*/\1/p')
  while [ $# -gt 0 ]; do
    case $only_operands$1 in
      -) operand "$1" ;;
      --) only_operands=yes ;;
      -h | --help) help_of "$command"; exit 0 ;;
      --*=*)
        is_option "${1%%=*}" || wrong "unknown option '$1'"
        case $1 in --file=*) has_file_option=yes ;; esac
        ;;
      --* | -?)
        is_option "$1" || wrong "unknown option '$1'"
        if takes_value "$1"; then
          [ $# -gt 1 ] || wrong "option '$1' argument missing"
          case $1 in -f | --file) has_file_option=yes ;; esac
          shift
        fi
        ;;
      -*) ;; # combined options, or one with its value: checked in Node
      *) operand "$1" ;;
    esac
    shift
  done
  if [ "$command" = run ] && [ -z "$has_file_option" ]; then needed=image; fi
  # shellcheck disable=SC2086 # a list of words
  set -- $needed
  [ $# -le "$operands" ] || { shift "$operands"; wrong "missing required argument '$1'"; }
}

operand() {
  operands=$((operands + 1))
  case $command in exec | debug) if [ "$operands" -gt 1 ] || [ "$command" = exec ]; then only_operands=yes; fi ;; esac
  if [ "$command" != run ] || [ "$1" = - ] || [ -n "$is_image" ]; then return 0; fi
  case $1 in
    /* | ./* | ../* | *.yaml | *.yml | *.json) ;;
    *)
      if [ ! -f "$1" ] && [ "$operands" = 1 ]; then # the words after an image are its command
        is_image=yes
        only_operands=yes
        return 0
      fi
      ;;
  esac
  why=
  if [ ! -e "$1" ]; then why='no such file'
  elif [ -d "$1" ]; then why='it is a directory'
  elif [ ! -r "$1" ]; then why='permission denied'; fi
  [ -z "$why" ] || {
    say "Cannot read $1: $why"
    printf '  fix: Pass readable YAML files, - for standard input, or an image such as nginx.\n' >&2
    exit 125
  }
}
