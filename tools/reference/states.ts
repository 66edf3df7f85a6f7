import { type ContainerState, containerMoves, type SandboxState, sandboxMoves } from '../../src/sandbox/sandbox.ts';
import { type MachineState, machineMoves } from '../../src/vm/driver.ts';
import { code, page, table } from './markdown.ts';

const machineStates: Readonly<Record<MachineState, string>> = {
  starting: 'The VMM process exists; the guest has not run yet.',
  running: 'The guest runs.',
  stopping: 'The guest was asked to power off.',
  stopped: 'The machine is gone: no process, socket or jail is left.',
  failed: 'The machine ended by itself or could not start. Nothing of it is left, as with `stopped`.',
};

const sandboxStates: Readonly<Record<SandboxState, string>> = {
  creating: 'Network, disks and machine are being made.',
  ready: 'Containers can be created.',
  stopping: 'Containers and machine are being stopped.',
  stopped: 'No process, network, mount or disk is left. The record and logs stay until the sandbox is removed.',
  failed: 'The start failed, or the machine was lost. What could not be cleaned up is tried again by the removal.',
};

const containerStates: Readonly<Record<ContainerState, string>> = {
  creating: 'The image is prepared and the guest makes the container.',
  created: 'The container exists; its program has not been started.',
  running: 'The program runs.',
  exited: 'The program ended, or the container could not be made or started.',
};

export async function statesPage(): Promise<string> {
  return await page(
    'States',
    '`src/vm/driver.ts` and `src/sandbox/sandbox.ts`',
    'States of machines, sandboxes and containers. A move that is not in a table is a bug: it throws, and changes nothing.',
    ...section('Machine', machineMoves, machineStates, 'One microVM (`src/vm/driver.ts`).'),
    ...section(
      'Sandbox',
      sandboxMoves,
      sandboxStates,
      'The machine of one pod with its containers (`src/sandbox/sandbox.ts`).',
    ),
    ...section('Container', containerMoves, containerStates, 'One attempt at a container of a pod.'),
  );
}

function section<S extends string>(
  title: string,
  moves: Readonly<Record<S, readonly S[]>>,
  meanings: Readonly<Record<S, string>>,
  about: string,
): string[] {
  const states = Object.keys(moves) as S[]; // SAFE: the keys of that very table
  const [first = ''] = states;
  const ends = states.filter((state) => moves[state].length === 0);
  const arrows = [
    `[*] --> ${first}`,
    ...states.flatMap((state) => moves[state].map((next) => `${state} --> ${next}`)),
    ...ends.map((state) => `${state} --> [*]`),
  ];
  return [
    `## ${title}`,
    about,
    `\`\`\`mermaid\nstateDiagram-v2\n${arrows.map((arrow) => `  ${arrow}`).join('\n')}\n\`\`\``,
    table(
      ['state', 'meaning', 'next states'],
      states.map((state) => [code(state), meanings[state], moves[state].map(code).join(', ') || 'none']),
    ),
  ];
}
