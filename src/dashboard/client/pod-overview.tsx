import { useRef } from 'preact/hooks';
import type { DescribedLimits, PodDescription } from '#api/description.ts';
import type { PodDetails } from '#api/pods.ts';
import { Events } from './events.tsx';
import { ageText, bytesText, coresText, secondsText } from './format.ts';
import { Plot } from './plot.tsx';
import { Timeline } from './timeline.tsx';
import { Troubles } from './troubles.tsx';
import { Card, Facts, Figure } from './ui.tsx';

interface Props {
  readonly pod: PodDetails;
  readonly described: PodDescription;
}

/** Everything about a pod at one glance. */
export function PodOverview({ pod, described }: Props) {
  const { machine } = described;
  const samples = useSamples({ pod, described });
  return (
    <>
      {machine?.failure === undefined ? null : <p class="problem">{machine.failure}</p>}
      <Ending pod={pod} described={described} />
      {machine?.unmeasured === undefined ? null : <p class="problem">Figures are missing: {machine.unmeasured}</p>}
      <div class="cards">
        <Troubles pod={pod} />
        {machine?.use === undefined && machine?.cost === undefined ? null : (
          <>
            <Memory described={described} samples={samples} />
            <Processor described={described} samples={samples} />
          </>
        )}
        <Containers pod={pod} described={described} />
        {machine === undefined || machine.timeline.length === 0 ? null : (
          <Card title="Start of the machine" aside={<span class="faint">median: of the node's latest starts</span>}>
            <Timeline steps={machine.timeline} />
          </Card>
        )}
        <Card title="Events">
          <Events events={described.events} />
        </Card>
        {pod.sandbox?.stats === undefined ? null : (
          <>
            <Network pod={pod} samples={samples} />
            <Disk pod={pod} />
          </>
        )}
        <Machine pod={pod} described={described} />
      </div>
    </>
  );
}

/** Why a pod has ended, if not well. */
function Ending({ pod, described }: Props) {
  if (pod.endedAt === undefined || pod.exitCode === 0 || described.reason === undefined) return null;
  return <p class="problem">{described.reason}</p>;
}

interface Sample {
  readonly at: number;
  readonly podBytes: number | undefined;
  readonly machineBytes: number | undefined;
  readonly podCpu: number | undefined;
  readonly machineCpu: number | undefined;
  readonly received: number | undefined;
  readonly sent: number | undefined;
}
type Samples = readonly Sample[];

const maxSamples = 450;

/** The answers since the page was opened. */
function useSamples({ pod, described: { machine } }: Props): Samples {
  const samples = useRef<Sample[]>([]);
  const known = useRef<PodDescription['machine']>(undefined);
  if (machine !== undefined && machine !== known.current) {
    known.current = machine;
    const interfaces = pod.sandbox?.stats?.interfaces;
    const last = samples.current.at(-1);
    if (last?.machineCpu !== undefined && (machine.cost?.cpuSeconds ?? 0) < last.machineCpu) samples.current = [];
    samples.current.push({
      at: Date.now() / 1000,
      podBytes: machine.use?.memoryBytes,
      machineBytes: machine.cost?.privateBytes,
      podCpu: machine.use?.cpuSeconds,
      machineCpu: machine.cost?.cpuSeconds,
      received: interfaces?.reduce((sum, { rxBytes }) => sum + rxBytes, 0),
      sent: interfaces?.reduce((sum, { txBytes }) => sum + txBytes, 0),
    });
    if (samples.current.length > maxSamples) samples.current.shift();
  }
  return samples.current;
}

const times = (samples: Samples) => samples.map(({ at }) => at);
const rates = (samples: Samples, value: (sample: Sample) => number | undefined) =>
  samples.map((sample, at) => {
    const before = samples[at - 1];
    const [now, then] = [value(sample), before === undefined ? undefined : value(before)];
    if (before === undefined || now === undefined || then === undefined) return undefined;
    return Math.max(0, (now - then) / (sample.at - before.at));
  });

function Memory({
  described: { machine },
  samples,
}: {
  readonly described: PodDescription;
  readonly samples: Samples;
}) {
  const { use, cost, limits } = machine ?? {};
  const overhead = use === undefined || cost === undefined ? undefined : cost.privateBytes - use.memoryBytes;
  return (
    <Card title="Memory">
      <div class="figures">
        <Figure name="Pod" value={bytesText(use?.memoryBytes)} note={limitText(limits?.memoryLimitBytes, bytesText)} />
        <Figure
          name="Requested"
          value={limits?.memoryRequestBytes === undefined ? 'nothing' : bytesText(limits.memoryRequestBytes)}
          note={headroomText(limits, use?.memoryBytes)}
        />
        <Figure name="VM, private" value={bytesText(cost?.privateBytes)} />
        <Figure name="Overhead" value={bytesText(overhead)} />
        <Figure name="Shared with others" value={bytesText(cost?.sharedBytes)} />
      </div>
      <Plot
        title="Memory of pod and VM"
        format={bytesText}
        isBytes
        times={times(samples)}
        lines={[
          { name: 'VM', colour: '--vm', values: samples.map(({ machineBytes }) => machineBytes) },
          { name: 'Pod', colour: '--pod', values: samples.map(({ podBytes }) => podBytes) },
        ]}
        fillsBetween
      />
    </Card>
  );
}

function Processor({
  described: { machine },
  samples,
}: {
  readonly described: PodDescription;
  readonly samples: Samples;
}) {
  const { use, cost, limits } = machine ?? {};
  const pod = rates(samples, ({ podCpu }) => podCpu);
  const vm = rates(samples, ({ machineCpu }) => machineCpu);
  const [podNow, vmNow] = [pod.at(-1), vm.at(-1)];
  return (
    <Card title="Processor">
      <div class="figures">
        <Figure
          name="Pod, cores"
          value={coresText(podNow)}
          note={limitText(limits?.cpuLimitMillis, (millis) => (millis / 1000).toFixed(2))}
        />
        <Figure name="VM, cores" value={coresText(vmNow)} />
        <Figure
          name="Overhead"
          value={coresText(podNow === undefined || vmNow === undefined ? undefined : vmNow - podNow)}
        />
        <Figure
          name="Waited for the node"
          value={secondsText(cost?.waitSeconds)}
          note={`of ${secondsText(use?.cpuSeconds)} used`}
        />
      </div>
      <Plot
        title="Processor use of pod and VM"
        format={coresText}
        times={times(samples)}
        lines={[
          { name: 'VM', colour: '--vm', values: vm },
          { name: 'Pod', colour: '--pod', values: pod },
        ]}
        fillsBetween
      />
    </Card>
  );
}

function headroomText(limits: DescribedLimits | undefined, usedBytes: number | undefined): string {
  const { memoryLimitBytes: limit, memoryRequestBytes: request } = limits ?? {};
  if (usedBytes === undefined) return '';
  if (limit !== undefined) return `${bytesText(Math.max(0, limit - usedBytes))} of the limit left`;
  return request !== undefined && usedBytes > request ? `${bytesText(usedBytes - request)} more used` : '';
}

const limitText = (limit: number | undefined, format: (value: number) => string): string =>
  limit === undefined ? 'no limit' : `of ${format(limit)}`;

function Network({ pod, samples }: { readonly pod: PodDetails; readonly samples: Samples }) {
  const received = rates(samples, (sample) => sample.received);
  const sent = rates(samples, (sample) => sample.sent);
  const rate = (value: number | undefined) => (value === undefined ? '–' : `${bytesText(value)}/s`);
  const interfaces = pod.sandbox?.stats?.interfaces ?? [];
  const lost = interfaces.reduce((sum, it) => sum + it.rxDropped + it.txDropped + it.rxErrors + it.txErrors, 0);
  const refused = Object.values(pod.sandbox?.stats?.dropped ?? {}).reduce((sum, count) => sum + count, 0);
  return (
    <Card title="Network">
      <div class="figures">
        <Figure name="Received" value={rate(received.at(-1))} note={bytesText(samples.at(-1)?.received)} />
        <Figure name="Sent" value={rate(sent.at(-1))} note={bytesText(samples.at(-1)?.sent)} />
        <Figure name="Lost packets" value={String(lost)} />
        <Figure name="Refused packets" value={String(refused)} />
      </div>
      <Plot
        title="Network traffic"
        format={rate}
        isBytes
        times={times(samples)}
        lines={[
          { name: 'Received', colour: '--pod', values: received },
          { name: 'Sent', colour: '--vm', values: sent },
        ]}
      />
    </Card>
  );
}

function Disk({ pod: { sandbox } }: { readonly pod: PodDetails }) {
  const stats = sandbox?.stats;
  const modes = new Map(sandbox?.volumes.map(({ name, mode }) => [name, mode]));
  const used = [
    ...(stats?.containers ?? []).flatMap(({ name, layer }) =>
      layer === undefined ? [] : [{ name, kind: 'written layer', ...layer }],
    ),
    ...(stats?.volumes ?? []).map(({ name, bytes, inodes }) => ({ name, kind: 'scratch volume', bytes, inodes })),
  ];
  const others = [...modes].filter(([name]) => !used.some((it) => it.name === name));
  return (
    <Card title="Disk">
      <div class="scroll" tabIndex={0} role="region" aria-label="Disk use">
        <table>
          <thead>
            <tr>
              <th scope="col">Name</th>
              <th scope="col">Kind</th>
              <th scope="col" class="number">
                Size
              </th>
              <th scope="col" class="number">
                Files
              </th>
            </tr>
          </thead>
          <tbody>
            {used.map(({ name, kind, bytes, inodes }) => (
              <tr key={`${kind} ${name}`}>
                <td>{name}</td>
                <td>{kind}</td>
                <td class="number">{bytesText(bytes)}</td>
                <td class="number">{inodes}</td>
              </tr>
            ))}
            {others.map(([name, mode]) => (
              <tr key={name}>
                <td>{name}</td>
                <td>{mode}</td>
                <td class="number">–</td>
                <td class="number">–</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

function Containers({ pod, described }: Props) {
  return (
    <Card title="Containers" wide>
      <div class="scroll" tabIndex={0} role="region" aria-label="Containers">
        <table>
          <thead>
            <tr>
              {['Name', 'State', 'Restarts', 'Age', 'Memory', 'Limit', 'CPU time', 'OOM kills', 'Image'].map(
                (title, at) => (
                  <th key={title} scope="col" class={at >= 2 && at <= 7 ? 'number' : ''}>
                    {title}
                  </th>
                ),
              )}
            </tr>
          </thead>
          <tbody>
            {described.containers.map(
              ({ name, state, reason, exitCode, message, restartCount, startedAt, use, limits, image }) => (
                <tr key={name}>
                  <td>
                    {name}
                    <span class="faint"> {kindOf(pod, name)}</span>
                  </td>
                  <td>
                    {[state, reason, exitCode === undefined ? undefined : `exit code ${exitCode}`]
                      .filter(Boolean)
                      .join(', ')}
                    {message === undefined ? null : <div class="faint">{message}</div>}
                  </td>
                  <td class="number">{restartCount ?? 0}</td>
                  <td class="number">{startedAt === undefined ? '–' : ageText(startedAt)}</td>
                  <td class="number">{bytesText(use?.memoryBytes)}</td>
                  <td class="number">
                    {limits.memoryLimitBytes === undefined ? 'none' : bytesText(limits.memoryLimitBytes)}
                  </td>
                  <td class="number">{secondsText(use?.cpuSeconds)}</td>
                  <td class="number">{use?.oomKills ?? '–'}</td>
                  <td class="code">{image}</td>
                </tr>
              ),
            )}
          </tbody>
        </table>
      </div>
    </Card>
  );
}

const kindOf = ({ containers }: PodDetails, name: string): string => {
  const kind = containers.find((container) => container.name === name)?.kind ?? 'main';
  return kind === 'main' ? '' : kind;
};

function Machine({ pod, described: { machine, containers, madeBy } }: Props) {
  const jail = pod.sandbox?.jail;
  const mounts = containers.flatMap(({ name, mounts }) => mounts.map((mount) => ({ name, ...mount })));
  return (
    <Card title="Machine, jail and labels" wide>
      <div class="columns">
        <Facts
          rows={[
            ['Made by', madeBy],
            ['Addresses', pod.addresses.join(', ')],
            ['Machine', machine?.id],
            ['State', machine?.state],
            ['Runs by', machine?.accelerator],
            ['Process', machine?.pid],
            ['Guest memory', machine?.cost === undefined ? undefined : bytesText(machine.cost.guestMemoryBytes)],
            ...Object.entries(machine?.parts ?? {}).map(([name, version]) => [`Version of ${name}`, version] as const),
            ['Warnings', machine?.warnings.join('; ')],
          ]}
        />
        {jail === undefined ? null : (
          <Facts
            rows={[
              [
                'Jail',
                jail.weaknesses.length === 0 ? (
                  <span class="status good">complete</span>
                ) : (
                  <span class="status bad">{jail.weaknesses.join('; ')}</span>
                ),
              ],
              ['User, group', `${jail.uid}, ${jail.gid}`],
              ['Capabilities', jail.capabilities === '0' ? 'none' : jail.capabilities],
              ['New privileges', jail.noNewPrivileges ? 'never' : 'possible'],
              ['Seccomp filters', jail.seccompFilters],
              ['Own namespaces', jail.namespaces.join(', ')],
              [
                'Mounts',
                `${jail.mounts.length}, ${jail.mounts.filter(({ readOnly }) => !readOnly).length} of them writable`,
              ],
              ['Devices', jail.devices.join(', ')],
            ]}
          />
        )}
        <Facts
          rows={[
            ...Object.entries(pod.labels).map(([key, value]) => [key, value] as const),
            ...mounts.map(({ name, mountPath, mode }) => [`${name}:${mountPath}`, mode] as const),
          ]}
        />
      </div>
    </Card>
  );
}
