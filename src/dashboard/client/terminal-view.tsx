import { useEffect, useRef, useState } from 'preact/hooks';
import type { PodDetails } from '#api/pods.ts';
import { chosenContainer, ContainerChoice } from './logs-view.tsx';
import { podPath } from './pod-name.ts';
import { asError } from './poll.ts';
import { Problem, type Told } from './ui.tsx';

/** A shell in a container, as `podvm exec -it`. */
export function TerminalView({ pod }: { readonly pod: PodDetails }) {
  const [container, setContainer] = useState(chosenContainer(pod));
  const [command, setCommand] = useState('sh');
  const [turn, setTurn] = useState(0);
  const [state, setState] = useState<{ readonly said?: string; readonly error?: Told }>({});
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = place.current;
    if (element === null || turn === 0) return;
    const stop = new AbortController();
    setState({});
    const open = async () => {
      const { openTerminal } = await import('./terminal.ts');
      if (stop.signal.aborted) return;
      const query = new URLSearchParams({ container, tty: 'true', stdin: 'true' });
      for (const word of command.split(/\s+/).filter(Boolean)) query.append('command', word);
      const ended = await openTerminal(element, `/v1${podPath(pod)}/exec`, query, stop.signal);
      if (!stop.signal.aborted) setState(ended);
    };
    open().catch((error: unknown) => setState({ error: asError(error) }));
    return () => stop.abort();
  }, [turn]);
  return (
    <section class="stream" aria-label="Terminal">
      <form
        class="toolbar"
        onSubmit={(event) => {
          event.preventDefault();
          setTurn(turn + 1);
        }}
      >
        <ContainerChoice pod={pod} value={container} onChange={setContainer} />
        <label>
          Command{' '}
          <input class="code" value={command} onInput={(event) => setCommand(event.currentTarget.value)} required />
        </label>
        <button type="submit" class="solid">
          {turn === 0 ? 'Start' : 'Start again'}
        </button>
        <span class="faint count" role="status">
          {state.said ?? ''}
        </span>
      </form>
      <Problem error={state.error} />
      <div class="screen" ref={place} hidden={turn === 0} />
      {turn === 0 ? (
        <p class="empty">The command runs in the container with a terminal. Its end, or leaving this page, ends it.</p>
      ) : null}
    </section>
  );
}
