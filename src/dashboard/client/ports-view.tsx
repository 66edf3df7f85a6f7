import { useState } from 'preact/hooks';
import { openedLinkSchema } from '#api/pod-link.ts';
import type { PodDetails } from '#api/pods.ts';
import { call, type CallError } from './api.ts';
import { keyOf, podPath } from './pod-name.ts';
import { asError } from './poll.ts';
import { Problem } from './ui.tsx';

interface OpenLink {
  readonly port: number;
  readonly url: string;
}

/** Links to HTTP servers in a pod. Each has an origin of its own, so that what the pod sends reaches nothing of this page. */
export function PortsView({ pod }: { readonly pod: PodDetails }) {
  const [port, setPort] = useState('80');
  const [links, setLinks] = useState<readonly OpenLink[]>([]);
  const [error, setError] = useState<CallError>();
  const open = async () => {
    setError(undefined);
    try {
      const path = podPath(pod).replace(/^\/pods/, '/links');
      const { host } = await call('POST', `${path}/${Number(port)}`, openedLinkSchema);
      setLinks([{ port: Number(port), url: `http://${host}:${location.port}/` }, ...links]);
    } catch (failure) {
      setError(asError(failure));
    }
  };
  return (
    <section class="stream" aria-label="Ports">
      <form
        class="toolbar"
        onSubmit={(event) => {
          event.preventDefault();
          void open();
        }}
      >
        <label>
          Port in the pod{' '}
          <input
            type="number"
            min="1"
            max="65535"
            required
            value={port}
            onInput={(event) => setPort(event.currentTarget.value)}
          />
        </label>
        <button type="submit" class="solid">
          Make a link
        </button>
      </form>
      <Problem error={error} />
      <div class="cards">
        {links.map((link) => (
          <section class="card" key={link.url}>
            <header>
              <h2>Port {link.port}</h2>
            </header>
            <p>
              <a href={link.url} target="_blank" rel="noopener noreferrer">
                Open port {link.port} in a new tab
              </a>
            </p>
            <p class="faint">
              Treat the address as a password: it opens the port for every program of this host. It ends with the
              dashboard.
            </p>
          </section>
        ))}
        <section class="card">
          <header>
            <h2>Other programs</h2>
          </header>
          <p>A link passes HTTP and WebSockets on. For other protocols, type on the node:</p>
          <pre class="command">
            podvm port-forward {keyOf(pod)} :{Number(port)}
          </pre>
        </section>
      </div>
    </section>
  );
}
