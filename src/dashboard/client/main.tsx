import { render } from 'preact';
import { useEffect } from 'preact/hooks';
import { images } from './images-page.tsx';
import { ListPage } from './list-page.tsx';
import { NodePage } from './node-page.tsx';
import { PodPage } from './pod-page.tsx';
import { PodsPage } from './pods-page.tsx';
import { type Route, useRoute } from './route.ts';
import { takeTokens } from './token.ts';
import { volumes } from './volumes-page.tsx';

const links = [
  ['/', 'Node'],
  ['/pods', 'Pods'],
  ['/images', 'Images'],
  ['/volumes', 'Volumes'],
] as const;

function App() {
  const route = useRoute();
  const title = titleOf(route);
  useEffect(() => {
    document.title = `${title} – PodVM`;
  }, [title]);
  return (
    <>
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <header class="top">
        <span class="brand">PodVM</span>
        <nav aria-label="Pages">
          {links.map(([path, name]) => (
            <a
              key={path}
              href={path}
              aria-current={
                path === route.path ? 'page' : path !== '/' && route.path.startsWith(path) ? 'true' : undefined
              }
            >
              {name}
            </a>
          ))}
        </nav>
      </header>
      <div id="main" tabIndex={-1}>
        <Page route={route} />
      </div>
    </>
  );
}

function Page({ route }: { readonly route: Route }) {
  switch (route.path) {
    case '/':
      return <NodePage />;
    case '/pods':
      return <PodsPage route={route} />;
    case '/images':
      return <ListPage list={images} route={route} key={route.path} />;
    case '/volumes':
      return <ListPage list={volumes} route={route} key={route.path} />;
    default:
      return <PodPage route={route} key={route.path} />;
  }
}

function titleOf({ path }: Route): string {
  const [, name] = links.find(([known]) => known === path) ?? [];
  return name ?? path.split('/').slice(2).map(decodeURIComponent).join('/');
}

takeTokens(window);
render(<App />, document.body);
