import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { PodDetails } from '#api/pods.ts';
import { type CallError, streamText } from './api.ts';
import { followLines } from './follow-lines.ts';
import { podPath } from './pod-name.ts';
import { asError } from './poll.ts';
import { type Frames, maxLines } from './tell-lines.ts';
import { Problem } from './ui.tsx';
import { whileVisible } from './while-visible.ts';

/** Lines that share one element, which the browser lays out only in sight. */
const blockLines = 100;

/** Output of a container. */
export function LogsView({ pod }: { readonly pod: PodDetails }) {
  const [container, setContainer] = useState(chosenContainer(pod));
  const [isPrevious, setPrevious] = useState(false);
  const query = new URLSearchParams({ container, tail: String(maxLines), previous: String(isPrevious) });
  return (
    <StreamView
      title={`Output of ${container}`}
      path={`/v1${podPath(pod)}/logs?${query.toString()}`}
      controls={
        <>
          <ContainerChoice pod={pod} value={container} onChange={setContainer} />
          <label class="check">
            <input
              type="checkbox"
              checked={isPrevious}
              onChange={(event) => setPrevious(event.currentTarget.checked)}
            />
            Before the last restart
          </label>
        </>
      }
    />
  );
}

/** Serial console of the machine. */
export const ConsoleView = ({ pod }: { readonly pod: PodDetails }) => (
  <StreamView title="Console of the guest" path={`/v1${podPath(pod)}/console?`} />
);

export const chosenContainer = ({ containers }: PodDetails): string =>
  (containers.find(({ kind }) => kind === 'main') ?? containers[0])?.name ?? '';

export function ContainerChoice(props: {
  readonly pod: PodDetails;
  readonly value: string;
  readonly onChange: (name: string) => void;
}) {
  return (
    <label>
      Container{' '}
      <select value={props.value} onChange={(event) => props.onChange(event.currentTarget.value)}>
        {props.pod.containers.map(({ name }) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
}

interface StreamProps {
  readonly title: string;
  /** Ends with a query. */
  readonly path: string;
  readonly controls?: ComponentChildren;
}

/** Text that comes in parts, searched and followed. It is a guest's: only text nodes have it. */
function StreamView({ title, path, controls }: StreamProps) {
  const [search, setSearch] = useState('');
  const [follows, setFollows] = useState(true);
  const { lines, error, isOver } = useLines(path);
  const view = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (follows && view.current !== null) view.current.scrollTop = view.current.scrollHeight;
  }, [lines, follows, search]);
  const word = search.toLowerCase();
  const shown = word === '' ? lines : lines.filter((line) => line.toLowerCase().includes(word));
  const blocks = Array.from({ length: Math.ceil(shown.length / blockLines) }, (_, at) =>
    shown
      .slice(at * blockLines, (at + 1) * blockLines)
      .map((line) => `${line}\n`)
      .join(''),
  );
  return (
    <section class="stream" aria-label={title}>
      <div class="toolbar">
        {controls}
        <input
          type="search"
          aria-label="Search lines"
          placeholder="Search lines…"
          value={search}
          onInput={(event) => setSearch(event.currentTarget.value)}
        />
        <label class="check">
          <input type="checkbox" checked={follows} onChange={(event) => setFollows(event.currentTarget.checked)} />
          Follow
        </label>
        <span class="faint count" role="status">
          {word === '' ? `${lines.length} lines` : `${shown.length} of ${lines.length} lines`}
          {isOver ? ', ended' : error === undefined ? ', live' : ', waiting for the node'}
        </span>
      </div>
      <Problem error={error} />
      <div class="text" ref={view} tabIndex={0} role="log" aria-live="off" aria-label={title}>
        {blocks.length === 0 ? <p class="empty">Nothing is written{isOver ? '.' : ' yet.'}</p> : null}
        {blocks.map((block, at) => (
          <pre key={at}>{block}</pre>
        ))}
      </div>
    </section>
  );
}

/** Follows a text, or reads what there is of one that cannot be followed: a console that is only kept in memory. */
async function* streamFollowed(path: string, signal: AbortSignal): AsyncGenerator<string> {
  try {
    yield* streamText(`${path}&follow=true`, signal);
  } catch (error) {
    if (asError(error).kind !== 'failedPrecondition') throw error;
    yield* streamText(`${path}&follow=false`, signal);
  }
}

/**
 * The last lines of a stream. It is only open while the page is visible, and then read again: a browser has few
 * connections to a server, which all its tabs share.
 */
function useLines(path: string): { lines: readonly string[]; error: CallError | undefined; isOver: boolean } {
  const [state, setState] = useState<{ lines: readonly string[]; error?: CallError; isOver: boolean }>({
    lines: [],
    isOver: false,
  });
  useEffect(() => {
    let isOver = false;
    setState({ lines: [], isOver });
    return whileVisible(document, (signal) => {
      if (isOver) return;
      const tell = (lines: readonly string[]) => {
        if (!signal.aborted) setState({ lines, isOver: false });
      };
      const onCut = (error: CallError) => {
        if (!signal.aborted) setState(({ lines }) => ({ lines, error, isOver: false }));
      };
      const pause = () => pauseFor(againMs, signal);
      const end = (error?: CallError) => {
        if (signal.aborted) return;
        isOver = true;
        setState(({ lines }) => ({ lines, ...(error === undefined ? {} : { error }), isOver }));
      };
      followLines(() => streamFollowed(path, signal), { tell, onCut, frames, pause }).then(
        () => end(),
        (error: unknown) => end(asError(error)),
      );
    });
  }, [path]);
  return { error: undefined, ...state };
}

/** Interval of tries to reach a node that does not answer, in `ms`. */
const againMs = 1000;

/** Rejects with the signal's reason when that aborts. */
const pauseFor = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => (clearTimeout(timer), reject(signal.reason as Error)), { once: true });
  });

const frames: Frames = {
  request: (act) => requestAnimationFrame(act),
  cancel: (frame) => cancelAnimationFrame(frame),
};
