/**
 * The terminal writes its theme into `style` elements, which the content security policy of these pages forbids like all
 * inline style. From here on, an empty `template` takes the place of such an element, and its text goes to a constructed
 * style sheet, which a script of this server may make.
 */
export function allowStyles(): void {
  if (Object.hasOwn(document, 'createElement')) return;
  const create = document.createElement.bind(document);
  const createElement = (name: string, options?: ElementCreationOptions): HTMLElement => {
    if (name !== 'style') return create(name, options);
    const element = create('template');
    divertText(element);
    return element;
  };
  Object.defineProperty(document, 'createElement', { value: createElement });
}

function divertText(element: HTMLElement): void {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, 'textContent', {
    set(text: string) {
      sheet.replaceSync(text);
    },
  });
  const remove = element.remove.bind(element);
  element.remove = () => {
    remove();
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
  };
}
