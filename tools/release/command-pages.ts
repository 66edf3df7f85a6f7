import { type Command, Help } from 'commander';
import { commandsBelow } from '../../src/cli/completion.ts';
import { helpProgram } from '../../src/cli/help-pages.ts';

const help = new Help();

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
