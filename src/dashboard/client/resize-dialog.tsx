import { useEffect, useRef, useState } from 'preact/hooks';
import { type PodDetails, resizeAnswerSchema, type ResizeRequest } from '#api/pods.ts';
import { call, CallError } from './api.ts';
import { chosenContainer, ContainerChoice } from './logs-view.tsx';
import { podPath } from './pod-name.ts';
import { asError } from './poll.ts';
import { Problem, Words } from './ui.tsx';

const mib = 1024 * 1024;

/** The limits that a form names; empty fields leave theirs. Errors: CallError. */
export function sizeIn(container: string, memoryMiB: string, cores: string): ResizeRequest {
  const size = {
    container,
    ...(memoryMiB === '' ? {} : { memoryLimitBytes: Math.round(Number(memoryMiB) * mib) }),
    ...(cores === '' ? {} : { cpuLimitMillis: Math.round(Number(cores) * 1000) }),
  };
  if (memoryMiB !== '' || cores !== '') return size;
  throw new CallError('invalid', 'Cannot resize: neither field has a limit', 'Enter at least one.');
}

/** Changes limits of a container while it runs. Its end gives the focus back to the button. */
export function ResizeDialog({ pod, onEnd }: { readonly pod: PodDetails; readonly onEnd: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const [container, setContainer] = useState(chosenContainer(pod));
  const [memory, setMemory] = useState('');
  const [cores, setCores] = useState('');
  const [error, setError] = useState<CallError>();
  const [warnings, setWarnings] = useState<readonly string[]>([]);
  const resize = async () => {
    setError(undefined);
    try {
      const body = sizeIn(container, memory, cores);
      const answer = await call('POST', `/v1${podPath(pod)}/resize`, resizeAnswerSchema, { body });
      if (answer.warnings.length === 0) dialog.current?.close();
      else setWarnings(answer.warnings);
    } catch (failure) {
      setError(asError(failure));
    }
  };
  const used = pod.sandbox?.stats?.containers.find(({ name }) => name === container)?.memoryLimitBytes;
  return (
    <dialog ref={dialog} aria-labelledby="resize-title" onClose={onEnd}>
      <h2 id="resize-title">
        Resize {pod.namespace}/{pod.name}
      </h2>
      <p>The limits change at once, without a restart, and hold for later starts of the container.</p>
      <form
        class="fields"
        onSubmit={(event) => {
          event.preventDefault();
          void resize();
        }}
      >
        <ContainerChoice pod={pod} value={container} onChange={setContainer} />
        <label>
          Memory limit, MiB{' '}
          <input
            type="number"
            min="1"
            step="any"
            placeholder={used === undefined ? 'none' : (used / mib).toFixed(0)}
            value={memory}
            onInput={(event) => setMemory(event.currentTarget.value)}
          />
        </label>
        <label>
          CPU limit, cores{' '}
          <input
            type="number"
            min="0.001"
            step="any"
            placeholder="unchanged"
            value={cores}
            onInput={(event) => setCores(event.currentTarget.value)}
          />
        </label>
        <Problem error={error} />
        {warnings.map((warning) => (
          <p key={warning}>
            <Words text={warning} />
          </p>
        ))}
        <div class="buttons">
          <button type="button" onClick={() => dialog.current?.close()}>
            {warnings.length === 0 ? 'Cancel' : 'Close'}
          </button>
          <button type="submit" class="solid">
            Resize
          </button>
        </div>
      </form>
    </dialog>
  );
}
