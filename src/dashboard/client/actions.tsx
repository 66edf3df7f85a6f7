import { useEffect, useRef, useState } from 'preact/hooks';
import { type PodAction, refusalOf } from '#api/pod-actions.ts';
import { type PodDetails, podSummarySchema } from '#api/pods.ts';
import { call } from './api.ts';
import { podPath } from './pod-name.ts';
import { asError } from './poll.ts';
import { ResizeDialog } from './resize-dialog.tsx';
import { go } from './route.ts';
import { Problem, type Told, Words } from './ui.tsx';

interface ActionCall {
  readonly title: string;
  readonly method: 'POST' | 'DELETE';
  readonly path: string;
  /** What it does, asked before. */
  readonly asks?: string;
}

/** Calls of the actions that are buttons; `podActions` says in which state each is possible. */
const calls = {
  stop: {
    title: 'Stop',
    method: 'POST',
    path: '/stop',
    asks: 'Its containers get SIGTERM, and SIGKILL after the grace period.',
  },
  restart: {
    title: 'Restart',
    method: 'POST',
    path: '/restart',
    asks: 'The pod is stopped, and runs again in a new machine.',
  },
  start: { title: 'Start', method: 'POST', path: '/start' },
  killAndRemove: {
    title: 'Kill and remove',
    method: 'DELETE',
    path: '?force=true',
    asks: 'Its machine ends at once, and the pod is removed with its logs.',
  },
  remove: { title: 'Remove', method: 'DELETE', path: '', asks: 'The pod is removed with its logs.' },
} as const satisfies Partial<Record<PodAction, ActionCall>>;
type CalledAction = keyof typeof calls;
/** `resize` has a form of its own. */
const buttons = ['stop', 'restart', 'start', 'resize', 'killAndRemove', 'remove'] as const;
type Button = (typeof buttons)[number];

const titleOf = (button: Button): string => (button === 'resize' ? 'Resize' : calls[button].title);

/** Buttons of the actions on a pod. One that is not possible says why. */
export function Actions({ pod, onDone }: { readonly pod: PodDetails; readonly onDone: () => void }) {
  const [asked, setAsked] = useState<Button>();
  const [running, setRunning] = useState<CalledAction>();
  const [error, setError] = useState<Told>();
  const act = async (action: CalledAction) => {
    const { method, path }: ActionCall = calls[action];
    setAsked(undefined);
    setRunning(action);
    setError(undefined);
    try {
      await call(method, `/v1${podPath(pod)}${path}`, podSummarySchema, method === 'POST' ? { body: {} } : {});
      if (method === 'DELETE') go('/pods');
    } catch (failure) {
      setError(asError(failure));
    }
    setRunning(undefined);
    onDone();
  };
  const click = (action: Button) => {
    const refusal = refusalOf(action, pod);
    if (refusal !== undefined) setError(refusal);
    else if (action === 'resize' || 'asks' in calls[action]) {
      setError(undefined);
      setAsked(action);
    } else void act(action);
  };
  return (
    <div class="actions">
      <div role="group" aria-label="Actions">
        {buttons.map((action) => {
          const refusal = refusalOf(action, pod);
          return (
            <button
              type="button"
              key={action}
              class={action === 'killAndRemove' || action === 'remove' ? 'danger' : ''}
              aria-disabled={refusal !== undefined || running !== undefined}
              title={refusal === undefined ? '' : `${refusal.message}. ${refusal.fix}`}
              onClick={() => running === undefined && click(action)}
            >
              {running === action ? `${titleOf(action)}…` : titleOf(action)}
            </button>
          );
        })}
      </div>
      <Problem error={error} />
      {asked === 'resize' ? (
        <ResizeDialog
          pod={pod}
          onEnd={() => {
            setAsked(undefined);
            onDone();
          }}
        />
      ) : null}
      {asked === undefined || asked === 'resize' ? null : (
        <Ask
          title={`${calls[asked].title} ${pod.namespace}/${pod.name}?`}
          text={(calls[asked] as ActionCall).asks ?? ''}
          verb={calls[asked].title}
          isDanger={asked !== 'restart'}
          onAnswer={(isYes) => (isYes ? void act(asked) : setAsked(undefined))}
        />
      )}
    </div>
  );
}

/** A question before an action. Its end gives the focus back to the button. */
function Ask(props: {
  readonly title: string;
  readonly text: string;
  readonly verb: string;
  readonly isDanger: boolean;
  readonly onAnswer: (isYes: boolean) => void;
}) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog
      ref={dialog}
      aria-labelledby="ask-title"
      onClose={(event) => props.onAnswer(event.currentTarget.returnValue === 'yes')}
    >
      <h2 id="ask-title">{props.title}</h2>
      <p>
        <Words text={props.text} />
      </p>
      <div class="buttons">
        <button type="button" onClick={() => dialog.current?.close()}>
          Cancel
        </button>
        <button
          type="button"
          class={props.isDanger ? 'danger solid' : 'solid'}
          onClick={() => dialog.current?.close('yes')}
        >
          {props.verb}
        </button>
      </div>
    </dialog>
  );
}
