import { type Command, Help, type Option } from 'commander';
import { helpProgram } from '../../src/cli/help-pages.ts';

/**
 * Files of the Debian package that are generated from the command tree: its manual page, and its completion for bash.
 */
const help = new Help();

interface Leaf {
  /** Words of the command after `podvm`. */
  readonly words: readonly string[];
  readonly command: Command;
}

function* commandsBelow(command: Command, words: readonly string[] = []): Generator<Leaf> {
  for (const child of command.commands) {
    const own = [...words, child.name()];
    yield { words: own, command: child };
    yield* commandsBelow(child, own);
  }
}

/** Escapes text for a manual page (groff_man(7)). */
const roff = (text: string) =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/gm, '\\&$1');

/** The manual page `podvm(1)`. */
export function manualPage(version: string, date: string): string {
  const program = helpProgram();
  const described = (term: string, text: string) => `.TP\n.B ${roff(term)}\n${roff(text)}\n`;
  const optionsOf = (command: Command) =>
    help
      .visibleOptions(command)
      .filter(({ long }) => long !== '--help')
      .map((option) => described(help.optionTerm(option), help.optionDescription(option)))
      .join('');
  const sections = [...commandsBelow(program)]
    .filter(({ command }) => command.commands.length === 0)
    .map(({ words, command }) => {
      const operands = command.registeredArguments.map((one) =>
        described(help.argumentTerm(one), help.argumentDescription(one)),
      );
      const title = `${words.join(' ')} ${command.usage()}`;
      return `.SS ${roff(title)}\n${roff(command.description())}\n${operands.join('')}${optionsOf(command)}`;
    });
  return `.TH PODVM 1 "${date}" "podvm ${version}" "User Commands"
.SH NAME
podvm \\- runs Kubernetes pods, each in its own microVM
.SH SYNOPSIS
.B podvm
[options] command [arguments]
.SH DESCRIPTION
${roff(program.description())}
.SH OPTIONS
${optionsOf(program)}.SH COMMANDS
${sections.join('')}.SH FILES
.TP
.I /var/lib/podvm
State: images, sandboxes, and what set\\-up made.
.TP
.I /run/podvm
Sockets: podvm.sock of the commands, cri.sock of kubelets.
.SH SEE ALSO
.I /usr/share/doc/podvm
`;
}

const takesValue = ({ required, optional }: Option) => required || optional;
const wordsOf = (command: Command): string[] => [
  ...command.commands.map((child) => child.name()),
  ...help.visibleOptions(command).flatMap(({ short, long }) => [short, long].filter((word) => word !== undefined)),
];

/** Completion for bash: commands and options according to the words before, otherwise file names. */
export function bashCompletion(): string {
  const program = helpProgram();
  const all = [{ words: [], command: program }, ...commandsBelow(program)];
  const branches = all.map(
    ({ words, command }) => `    '${words.join(' ')}') words='${wordsOf(command).join(' ')}' ;;`,
  );
  const known = all.map(({ words }) => `'${words.join(' ')}'`).slice(1);
  const valued = all.flatMap(({ command }) => help.visibleOptions(command).filter(takesValue));
  const names = [...new Set(valued.flatMap(({ short, long }) => [short, long].filter((word) => word !== undefined)))];
  return `# Completion of podvm for bash, printed from its command tree.
_podvm() {
  local command= word words at
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
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}")
}
complete -o default -F _podvm podvm
`;
}
