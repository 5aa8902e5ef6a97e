// What a page of another site can make a browser ask. `run(target, names)` tries each way on a URL of its own,
// `names[way]` below `target`, and tells what the page could observe of each. `PATIENCE` ends what never settles.

const PATIENCE = 2500;

const later = (ms) => new Promise((done) => setTimeout(done, ms, "nothing"));

function within(promise) {
  return Promise.race([promise, later(PATIENCE)]);
}

function told(thing, ...more) {
  return within(
    new Promise((done) => {
      for (const name of ["load", "error", "loadedmetadata", "open", "message", "close", ...more]) {
        thing.addEventListener(name, () => done(name));
      }
    }),
  );
}

function put(tag, properties, parent = document.body) {
  const made = document.createElement(tag);
  const observed = told(made);
  for (const [name, value] of Object.entries(properties)) made.setAttribute(name, value);
  parent.append(made);
  return observed.then((what) => {
    const rect = made.getBoundingClientRect();
    return `${what} ${made.naturalWidth ?? ""} ${made.duration ?? ""} ${Math.round(rect.width)} ${made.error?.code ?? ""}`;
  });
}

function framed(properties, parent = document.body) {
  const frame = document.createElement("iframe");
  const observed = told(frame);
  for (const [name, value] of Object.entries(properties)) frame.setAttribute(name, value);
  parent.append(frame);
  return observed.then((what) => {
    let inside = "closed";
    try {
      inside = frame.contentDocument === null ? "closed" : `open ${frame.contentDocument.body.textContent}`;
    } catch {}
    return `${what} ${frame.contentWindow?.length} ${inside}`;
  });
}

function styled(text) {
  const style = document.createElement("style");
  style.textContent = text;
  document.head.append(style);
  return later(PATIENCE);
}

function form(url, method, inside = {}, enctype = "text/plain") {
  const name = `f${Math.random()}`;
  const frame = document.createElement("iframe");
  frame.name = name;
  const made = Object.assign(document.createElement("form"), { action: url, method, enctype, target: name });
  for (const [key, value] of Object.entries(inside)) {
    made.append(Object.assign(document.createElement("input"), { type: "hidden", name: key, value }));
  }
  document.body.append(frame, made);
  const observed = told(frame);
  made.submit();
  return observed;
}

function fetched(url, options) {
  return within(
    fetch(url, options).then(
      async (answer) => `${answer.type} ${answer.status} ${await answer.text()}`,
      (error) => `${error.name}`,
    ),
  );
}

function asked(method, url, body) {
  const request = new XMLHttpRequest();
  const observed = told(request);
  request.open(method, url);
  request.send(body);
  return observed.then((what) => `${what} ${request.status} ${request.responseText}`);
}

function opened(url, features = "") {
  const other = window.open(url, "_blank", features);
  return later(PATIENCE).then(() => {
    const seen = `${other?.length} ${other?.closed}`;
    other?.close();
    return seen;
  });
}

function worked(source, kind = Worker) {
  const worker = new kind(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  return told(worker.port ?? worker);
}

const quoted = JSON.stringify;
const here = (path, url) => `${path}?to=${encodeURIComponent(url)}`;

const GET_WAYS = {
  image: (url) => put("img", { src: url }),
  "image without referrer": (url) => put("img", { src: url, referrerpolicy: "no-referrer" }),
  "image with cors": (url) => put("img", { src: url, crossorigin: "use-credentials" }),
  "image set": (url) => put("img", { srcset: `${url} 1x` }),
  "image after a redirect": (url) => put("img", { src: here("/hop", url) }),
  "image button": (url) => put("input", { type: "image", src: url }),
  "image of svg": (url) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const image = document.createElementNS("http://www.w3.org/2000/svg", "image");
    image.setAttribute("href", url);
    svg.append(image);
    document.body.append(svg);
    return told(image);
  },
  script: (url) => put("script", { src: url }),
  "module script": (url) => put("script", { src: url, type: "module" }),
  "dynamic import": (url) => within(import(url).then(() => "loaded", (error) => error.name)),
  stylesheet: (url) => put("link", { rel: "stylesheet", href: url }, document.head),
  "css import": (url) => styled(`@import url(${quoted(url)});`),
  "css background": (url) => styled(`body { background-image: url(${quoted(url)}); }`),
  "css cursor": (url) => styled(`html { cursor: url(${quoted(url)}), auto; }`),
  font: (url) => within(new FontFace("f", `url(${quoted(url)})`).load().then(() => "loaded", (e) => e.name)),
  icon: (url) => put("link", { rel: "icon", href: url }, document.head),
  manifest: (url) => put("link", { rel: "manifest", href: url }, document.head),
  preload: (url) => put("link", { rel: "preload", as: "image", href: url }, document.head),
  "preload for fetch": (url) => put("link", { rel: "preload", as: "fetch", href: url }, document.head),
  "module preload": (url) => put("link", { rel: "modulepreload", href: url }, document.head),
  prefetch: (url) => put("link", { rel: "prefetch", href: url }, document.head),
  "speculative prefetch": (url) => speculated("prefetch", url),
  prerender: (url) => speculated("prerender", url),
  frame: (url) => framed({ src: url }),
  "frame in a sandbox": (url) => framed({ src: url, sandbox: "" }),
  "frame without referrer": (url) => framed({ src: url, referrerpolicy: "no-referrer" }),
  "frame that refreshes": (url) => framed({ src: here("/refresh", url) }),
  "frame that goes there": (url) => framed({ src: here("/go", url) }),
  "frame after a redirect": (url) => framed({ src: here("/hop", url) }),
  "frame of its own text": (url) => framed({ srcdoc: `<img src=${quoted(url)}>` }),
  object: (url) => put("object", { data: url }),
  embed: (url) => put("embed", { src: url }),
  video: (url) => put("video", { src: url }),
  poster: (url) => put("video", { poster: url }),
  audio: (url) => put("audio", { src: url }),
  track: (url) => {
    const video = document.createElement("video");
    const track = Object.assign(document.createElement("track"), { kind: "captions", src: url, default: true });
    video.append(track);
    document.body.append(video);
    track.track.mode = "showing";
    return told(track);
  },
  "form get": (url) => form(url, "get"),
  "fetch without cors": (url) => fetched(url, { mode: "no-cors" }),
  "fetch with cors": (url) => fetched(url, {}),
  "fetch with cookies": (url) => fetched(url, { mode: "no-cors", credentials: "include" }),
  "fetch kept alive": (url) => fetched(url, { mode: "no-cors", keepalive: true }),
  "fetch after a redirect": (url) => fetched(here("/hop", url), { mode: "no-cors" }),
  "fetch of a worker": (url) => worked(`fetch(${quoted(url)}, {mode: "no-cors"}).finally(() => postMessage(1))`),
  "script of a worker": (url) => worked(`try { importScripts(${quoted(url)}) } finally { postMessage(1) }`),
  worker: (url) => within(new Promise((done) => {
    try {
      told(new Worker(url)).then(done);
    } catch (error) {
      done(error.name);
    }
  })),
  "fetch of a service worker": (url) => served(url),
  xhr: (url) => asked("GET", url),
  "event source": (url) => told(new EventSource(url)),
  window: (url) => opened(url),
  "window without opener": (url) => opened(url, "noopener"),
  "window that refreshes": (url) => opened(here("/refresh", url)),
  link: (url) => {
    const made = Object.assign(document.createElement("a"), { href: url, target: "_blank", rel: "noreferrer" });
    document.body.append(made);
    made.click();
    return later(PATIENCE);
  },
};

const OTHER_WAYS = {
  "web socket": (url) => told(new WebSocket(url.replace(/^http/, "ws"))),
  "form post": (url) => form(url, "post", { '{"x":"': '"}' }),
  "form post, encoded": (url) => form(url, "post", { a: "b" }, "application/x-www-form-urlencoded"),
  "form post in a sandbox": (url) =>
    framed({
      sandbox: "allow-forms allow-scripts",
      srcdoc: `<form method=post action=${quoted(url)}><input name=a></form><script>document.forms[0].submit()</script>`,
    }),
  "form post after a redirect": (url) => form(here("/hop", url) + "&code=307", "post", { '{"x":"': '"}' }),
  "form post without referrer": (url) => framed({ src: here("/post", url), referrerpolicy: "no-referrer" }),
  "fetch post": (url) => fetched(url, { mode: "no-cors", method: "POST", body: '{"status":"stop"}' }),
  "fetch post with cors": (url) => fetched(url, { method: "POST", body: "{}" }),
  "fetch post after a redirect": (url) =>
    fetched(here("/hop", url) + "&code=307", { mode: "no-cors", method: "POST", body: "{}" }),
  "fetch delete": (url) => fetched(url, { method: "DELETE" }),
  "fetch put": (url) => fetched(url, { method: "PUT", body: "{}" }),
  "fetch patch": (url) => fetched(url, { method: "PATCH", body: "{}" }),
  "fetch head": (url) => fetched(url, { mode: "no-cors", method: "HEAD" }),
  "xhr post": (url) => asked("POST", url, "{}"),
  beacon: (url) => Promise.resolve(String(navigator.sendBeacon(url, "{}"))),
  ping: (url) => {
    const made = Object.assign(document.createElement("a"), { href: "#", ping: url });
    document.body.append(made);
    made.click();
    return later(PATIENCE);
  },
  "report of a policy": (url) => framed({ src: here("/report", url) }),
};

function speculated(kind, url) {
  const rules = { [kind]: [{ source: "list", urls: [url], eagerness: "immediate" }] };
  document.head.append(
    Object.assign(document.createElement("script"), { type: "speculationrules", textContent: JSON.stringify(rules) }),
  );
  return later(PATIENCE);
}

async function served(url) {
  if (!navigator.serviceWorker) return "nothing";
  const found = await navigator.serviceWorker.register("/sw.js").catch(() => null);
  if (found === null) return "nothing";
  await navigator.serviceWorker.ready;
  found.active.postMessage(url);
  return told(navigator.serviceWorker);
}

window.run = async (target, names) => {
  const ways = { ...GET_WAYS, ...OTHER_WAYS };
  const wanted = Object.keys(names);
  const found = await Promise.all(
    wanted.map(async (way) => {
      const url = target + names[way];
      const what = await Promise.resolve(ways[way](url)).catch((error) => error.name);
      return [way, `${what}`];
    }),
  );
  const timings = wanted.flatMap((way) => performance.getEntriesByName(target + names[way]));
  const sizes = timings.map((one) => `${one.responseStatus} ${one.transferSize} ${one.decodedBodySize}`);
  return { ...Object.fromEntries(found), timings: [...new Set(sizes)].join() };
};
window.ways = { get: Object.keys(GET_WAYS), other: Object.keys(OTHER_WAYS) };
