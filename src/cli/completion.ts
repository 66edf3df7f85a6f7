import { type Command, Help, type Option } from 'commander';

/** Completion of command lines by shells, printed from the command tree. */
export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

const help = new Help();

interface Node {
  /** Words of the command after `podvm`. */
  readonly words: readonly string[];
  readonly command: Command;
}

/** Yields the commands below one, at any depth. */
export function* commandsBelow(command: Command, words: readonly string[] = []): Generator<Node> {
  for (const child of command.commands) {
    const own = [...words, child.name()];
    yield { words: own, command: child };
    yield* commandsBelow(child, own);
  }
}

const takesValue = ({ required, optional }: Option) => required || optional;
const formsOf = ({ short, long }: Option) => [short, long].filter((word) => word !== undefined);
/** Its first arguments are names of pods. */
const takesPods = (command: Command) => /^pods?$/.test(command.registeredArguments[0]?.name() ?? '');
/** Prints the names of pods, including ended ones, as a person types them. */
const podNames = "podvm ps -a -o name 2>/dev/null | sed 's,^default/,,'";

export const completion = (program: Command, shell: Shell): string =>
  shell === 'fish' ? fishCompletion(program) : posixCompletion(program, shell);

/** Commands, options and pods according to the words before, otherwise file names. */
function posixCompletion(program: Command, shell: 'bash' | 'zsh'): string {
  const all = [{ words: [], command: program }, ...commandsBelow(program)];
  const branches = all.map(({ words, command }) => {
    const offered = [
      ...command.commands.map((child) => child.name()),
      ...help.visibleOptions(command).flatMap((option) => formsOf(option)),
    ];
    const pods = takesPods(command) ? ' pods=1' : '';
    return `    '${words.join(' ')}') words='${offered.join(' ')}'${pods} ;;`;
  });
  const known = all.map(({ words }) => `'${words.join(' ')}'`).slice(1);
  const valued = all.flatMap(({ command }) => help.visibleOptions(command).filter(takesValue));
  const names = [...new Set(valued.flatMap((option) => formsOf(option)))];
  return `# Completion of podvm for ${shell}, printed from its command tree.
${shell === 'zsh' ? 'autoload -U +X bashcompinit && bashcompinit\n' : ''}_podvm() {
  local command= word words pods= at
  for ((at = 1; at < COMP_CWORD; at++)); do
    word=\${COMP_WORDS[at]}
    case $word in
      ${names.join(' | ')}) ((at++)); continue ;;
    esac
    case "\${command:+$command }$word" in
      ${known.join(' | ')}) command="\${command:+$command }$word" ;;
    esac
  done
  case $command in
${branches.join('\n')}
  esac
  if [ -n "$pods" ]; then words="$words $(${podNames})"; fi
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}")) || COMPREPLY=()
}
complete -o default -F _podvm podvm
`;
}

const quoted = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

function fishCompletion(program: Command): string {
  const lines = [{ words: [], command: program }, ...commandsBelow(program)].flatMap(({ words, command }) => {
    const exactly = quoted(`__podvm_is ${words.join(' ')}`.trim());
    const below = quoted(`__podvm_below ${words.join(' ')}`.trim());
    return [
      ...command.commands.map(
        (child) => `complete -c podvm -n ${exactly} -f -a ${child.name()} -d ${quoted(child.description())}`,
      ),
      ...(takesPods(command) ? [`complete -c podvm -n ${below} -f -a ${quoted(`(${podNames})`)}`] : []),
      ...help.visibleOptions(command).map((option) => {
        const forms = [
          ...(option.short === undefined ? [] : [`-s ${option.short.slice(1)}`]),
          ...(option.long === undefined ? [] : [`-l ${option.long.slice(2)}`]),
        ];
        const value = takesValue(option) ? ' -r' : '';
        return `complete -c podvm -n ${below} ${forms.join(' ')}${value} -d ${quoted(option.description)}`;
      }),
    ];
  });
  return `# Completion of podvm for fish, printed from its command tree.
function __podvm_words
    string match -v -- '-*' (commandline -opc)[2..]
end
function __podvm_is
    set -l words (__podvm_words)
    test "$words" = "$argv"
end
function __podvm_below
    set -l words (__podvm_words)
    set -l first
    test (count $argv) -eq 0; or set first $words[1..(count $argv)]
    test "$first" = "$argv"
end
${lines.join('\n')}
`;
}
