/* <sluice-chat>: a chat with a Sluice gateway in any web page. No dependencies; docs/widget.md says what it takes.
 *
 *   <script src="https://gateway.example.com/widget/chat-widget.js" defer></script>
 *   <sluice-chat data-api-url="https://gateway.example.com" data-token-url="/chat-token"></sluice-chat>
 *
 * Nothing of an answer is ever read as HTML: markdown becomes elements whose text is text.
 */
(() => {
  "use strict";
  if (typeof HTMLElement === "undefined") return; // a server that renders the page: the browser does the rest
  const ENDPOINT = "/v1/chat/stream";
  const HISTORY = "/v1/chat/messages";
  const KEPT = 60; // messages over reloads
  const RESUMES = 3;
  const OFFLINE = 300_000; // a stream that broke without a network is gone on with when there is one, within so many milliseconds
  const LATER = [2_000, 8_000]; // a turn that the gateway has not stored yet is looked for again after so many milliseconds
  const EARLY = 60_000; // a token is renewed so many milliseconds before it ends

  const TEXTS = {
    open: "Open the chat", close: "Close the chat", title: "Chat", write: "Write a message", send: "Send", stop: "Stop", retry: "Try again",
    wait: "Try again in {n} s", reasoning: "Reasoning", clear: "New conversation", you: "You", bot: "Assistant", broken: "The connection was lost.",
    failed: "Something went wrong.", busy: "Too many messages at the moment.", refused: "This chat is not available here.", long: "The message is too long.",
  };

  // The same in other languages, in the order of TEXTS. The page's lang chooses.
  const LANGUAGES = {
    ar: ["فتح المحادثة", "إغلاق المحادثة", "محادثة", "اكتب رسالة", "إرسال", "إيقاف", "حاول مرة أخرى", "حاول مرة أخرى بعد {n} ث", "التفكير", "محادثة جديدة", "أنت", "المساعد", "انقطع الاتصال.", "حدث خطأ ما.", "الرسائل كثيرة في الوقت الحالي.", "هذه المحادثة غير متاحة هنا.", "الرسالة طويلة جدًا."],
    de: ["Chat öffnen", "Chat schließen", "Chat", "Nachricht schreiben", "Senden", "Anhalten", "Noch einmal versuchen", "In {n} s noch einmal versuchen", "Überlegung", "Neues Gespräch", "Sie", "Assistent", "Die Verbindung ist abgebrochen.", "Etwas ist schiefgegangen.", "Gerade sind es zu viele Nachrichten.", "Dieser Chat ist hier nicht verfügbar.", "Die Nachricht ist zu lang."],
    es: ["Abrir el chat", "Cerrar el chat", "Chat", "Escribe un mensaje", "Enviar", "Detener", "Reintentar", "Reintentar en {n} s", "Razonamiento", "Nueva conversación", "Tú", "Asistente", "Se ha perdido la conexión.", "Algo ha salido mal.", "Hay demasiados mensajes en este momento.", "Este chat no está disponible aquí.", "El mensaje es demasiado largo."],
    fr: ["Ouvrir la discussion", "Fermer la discussion", "Discussion", "Écrire un message", "Envoyer", "Arrêter", "Réessayer", "Réessayer dans {n} s", "Raisonnement", "Nouvelle conversation", "Vous", "Assistant", "La connexion a été perdue.", "Une erreur s’est produite.", "Trop de messages pour le moment.", "Cette discussion n’est pas disponible ici.", "Le message est trop long."],
    he: ["פתיחת הצ'אט", "סגירת הצ'אט", "צ'אט", "כתיבת הודעה", "שליחה", "עצירה", "ניסיון נוסף", "ניסיון נוסף בעוד {n} שנ'", "תהליך החשיבה", "שיחה חדשה", "אתם", "העוזר", "החיבור נותק.", "משהו השתבש.", "יש יותר מדי הודעות כרגע.", "הצ'אט הזה אינו זמין כאן.", "ההודעה ארוכה מדי."],
    it: ["Apri la chat", "Chiudi la chat", "Chat", "Scrivi un messaggio", "Invia", "Interrompi", "Riprova", "Riprova tra {n} s", "Ragionamento", "Nuova conversazione", "Tu", "Assistente", "La connessione si è interrotta.", "Qualcosa è andato storto.", "Troppi messaggi in questo momento.", "Questa chat non è disponibile qui.", "Il messaggio è troppo lungo."],
    ja: ["チャットを開く", "チャットを閉じる", "チャット", "メッセージを入力", "送信", "停止", "再試行", "{n} 秒後に再試行", "思考の過程", "新しい会話", "あなた", "アシスタント", "接続が切れました。", "問題が発生しました。", "現在、メッセージが多すぎます。", "このチャットはここでは利用できません。", "メッセージが長すぎます。"],
    ko: ["채팅 열기", "채팅 닫기", "채팅", "메시지 입력", "보내기", "중지", "다시 시도", "{n}초 후 다시 시도", "추론 과정", "새 대화", "나", "어시스턴트", "연결이 끊어졌습니다.", "문제가 발생했습니다.", "현재 메시지가 너무 많습니다.", "여기에서는 이 채팅을 사용할 수 없습니다.", "메시지가 너무 깁니다."],
    nl: ["Chat openen", "Chat sluiten", "Chat", "Schrijf een bericht", "Versturen", "Stoppen", "Opnieuw proberen", "Over {n} s opnieuw proberen", "Redenering", "Nieuw gesprek", "U", "Assistent", "De verbinding is verbroken.", "Er is iets misgegaan.", "Er zijn nu te veel berichten.", "Deze chat is hier niet beschikbaar.", "Het bericht is te lang."],
    pl: ["Otwórz czat", "Zamknij czat", "Czat", "Napisz wiadomość", "Wyślij", "Zatrzymaj", "Spróbuj ponownie", "Spróbuj ponownie za {n} s", "Rozumowanie", "Nowa rozmowa", "Ty", "Asystent", "Połączenie zostało przerwane.", "Coś poszło nie tak.", "W tej chwili jest zbyt wiele wiadomości.", "Ten czat nie jest tu dostępny.", "Wiadomość jest za długa."],
    pt: ["Abrir o chat", "Fechar o chat", "Chat", "Escreva uma mensagem", "Enviar", "Parar", "Tentar novamente", "Tentar novamente em {n} s", "Raciocínio", "Nova conversa", "Você", "Assistente", "A conexão foi perdida.", "Algo deu errado.", "Há mensagens demais no momento.", "Este chat não está disponível aqui.", "A mensagem é longa demais."],
    ru: ["Открыть чат", "Закрыть чат", "Чат", "Напишите сообщение", "Отправить", "Остановить", "Повторить", "Повторить через {n} с", "Рассуждение", "Новый разговор", "Вы", "Ассистент", "Соединение прервано.", "Что-то пошло не так.", "Сейчас слишком много сообщений.", "Этот чат здесь недоступен.", "Сообщение слишком длинное."],
    tr: ["Sohbeti aç", "Sohbeti kapat", "Sohbet", "Mesaj yazın", "Gönder", "Durdur", "Yeniden dene", "{n} sn sonra yeniden dene", "Akıl yürütme", "Yeni sohbet", "Siz", "Asistan", "Bağlantı koptu.", "Bir şeyler ters gitti.", "Şu anda çok fazla mesaj var.", "Bu sohbet burada kullanılamıyor.", "Mesaj çok uzun."],
    uk: ["Відкрити чат", "Закрити чат", "Чат", "Напишіть повідомлення", "Надіслати", "Зупинити", "Спробувати ще раз", "Спробувати ще раз через {n} с", "Міркування", "Нова розмова", "Ви", "Асистент", "З’єднання перервано.", "Щось пішло не так.", "Зараз надто багато повідомлень.", "Цей чат тут недоступний.", "Повідомлення надто довге."],
    zh: ["打开聊天", "关闭聊天", "聊天", "输入消息", "发送", "停止", "重试", "{n} 秒后重试", "思考过程", "新对话", "您", "助手", "连接已中断。", "出了点问题。", "当前消息过多。", "此处无法使用该聊天。", "消息过长。"],
    "zh-hant": ["開啟聊天", "關閉聊天", "聊天", "輸入訊息", "傳送", "停止", "重試", "{n} 秒後重試", "思考過程", "新對話", "您", "助理", "連線已中斷。", "發生問題。", "目前訊息過多。", "此處無法使用此聊天。", "訊息過長。"],
  };
  const RIGHT_TO_LEFT = ["ar", "he"];

  // The language of these that is nearest to a tag (RFC 5646): "de-AT" is German, "zh-TW" is written in traditional characters.
  const nearest = (tag) => {
    const parts = tag.toLowerCase().split("-");
    if (parts[0] === "zh" && parts.some((part) => ["hant", "tw", "hk", "mo"].includes(part))) return "zh-hant";
    return LANGUAGES[parts[0]] ? parts[0] : "";
  };

  const STYLE = `
    :host { --back: var(--sluice-background, #fff); --text: var(--sluice-text, #1a2024); --accent: var(--sluice-accent, #0b6e6e); --on: var(--sluice-on-accent, #fff);
      --line: var(--sluice-line, #d5dbdf); --soft: var(--sluice-soft, #eef1f3); --round: var(--sluice-radius, 12px); color-scheme: light;
      font: var(--sluice-font, 15px/1.5 system-ui, sans-serif); color: var(--text); display: block; }
    :host([data-theme=dark]) { --back: var(--sluice-background, #1a2125); --text: var(--sluice-text, #e6ebee); --accent: var(--sluice-accent, #4fc3c3); --on: var(--sluice-on-accent, #06282a); --line: var(--sluice-line, #37434a); --soft: var(--sluice-soft, #262f35); color-scheme: dark; }
    @media (prefers-color-scheme: dark) { :host(:not([data-theme=light])) { --back: var(--sluice-background, #1a2125); --text: var(--sluice-text, #e6ebee); --accent: var(--sluice-accent, #4fc3c3); --on: var(--sluice-on-accent, #06282a); --line: var(--sluice-line, #37434a); --soft: var(--sluice-soft, #262f35); color-scheme: dark; } }
    * { box-sizing: border-box; } [hidden] { display: none !important; }
    :host([data-mode=bubble]) { position: fixed; inset-block-end: 1rem; inset-inline-end: 1rem; z-index: 2147483000; }
    :host([data-mode=bubble][data-position=bottom-left]) { inset-inline-end: auto; inset-inline-start: 1rem; }
    .bubble { width: 3.5rem; height: 3.5rem; border-radius: 50%; border: 0; background: var(--accent); color: var(--on); cursor: pointer; box-shadow: 0 3px 12px #0004; display: grid; place-content: center; margin-inline-start: auto; }
    .panel { background: var(--back); border: 1px solid var(--line); border-radius: var(--round); display: flex; flex-direction: column; height: 100%; min-height: 16rem; overflow: hidden; }
    :host([data-mode=bubble]) .panel { width: min(24rem, calc(100vw - 2rem)); height: min(36rem, calc(100vh - 6.5rem)); margin-block-end: .75rem; box-shadow: 0 8px 30px #0003; }
    header { display: flex; gap: .5rem; align-items: center; padding: .6rem .9rem; border-block-end: 1px solid var(--line); } header b { flex: 1; }
    button { font: inherit; color: inherit; } header button, .retry { background: none; border: 1px solid var(--line); border-radius: 6px; cursor: pointer; padding: .1rem .5rem; font-size: .87em; }
    .log { flex: 1; overflow-y: auto; padding: .9rem; display: flex; flex-direction: column; gap: .6rem; overscroll-behavior: contain; }
    .message { max-width: 92%; padding: .5rem .75rem; border-radius: var(--round); overflow-wrap: anywhere; background: var(--soft); align-self: flex-start; }
    .user { background: var(--accent); color: var(--on); align-self: flex-end; white-space: pre-wrap; }
    .error { background: none; border: 1px solid #b3261e88; } .waiting::after { content: "…"; }
    .message > :first-child, .message > .sr + * { margin-block-start: 0; } .message > :last-child { margin-block-end: 0; } p, ul, ol, pre, blockquote, table { margin-block: .5em; }
    h3, h4, h5 { margin-block: .7em .3em; font-size: 1.05em; } ul, ol { padding-inline-start: 1.4em; } blockquote { margin-inline: 0; padding-inline-start: .8em; border-inline-start: 3px solid var(--line); }
    pre { background: #0000000f; border-radius: 6px; padding: .6em; overflow-x: auto; direction: ltr; text-align: start; } code { font: .9em ui-monospace, monospace; } a { color: inherit; }
    table { border-collapse: collapse; display: block; overflow-x: auto; } td, th { border: 1px solid var(--line); padding: .2em .5em; text-align: start; }
    details { font-size: .9em; opacity: .8; margin-block-end: .4em; white-space: pre-wrap; } summary { cursor: pointer; }
    form { display: flex; gap: .5rem; padding: .6rem; border-block-start: 1px solid var(--line); align-items: flex-end; }
    textarea { flex: 1; min-width: 0; font: inherit; color: inherit; background: var(--back); border: 1px solid var(--line); border-radius: 8px; padding: .45rem .6rem; resize: none; max-height: 9rem; field-sizing: content; }
    form button { border: 0; background: var(--accent); color: var(--on); border-radius: 8px; padding: .5rem .9rem; cursor: pointer; } form button:disabled { opacity: .5; }
    :focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
    .sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }`;

  // --- markdown, as elements: never innerHTML, no images (they would tell others what was read), links only to the web and mail

  const make = (tag, className = "", text = "", part = "") => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text) element.textContent = text;
    if (part) element.setAttribute("part", part);
    return element;
  };

  // A speech bubble with three dots, drawn: emojis look different everywhere, and are missing on some machines.
  const icon = () => {
    const draw = (tag, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
      Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
      return element;
    };
    const drawn = draw("svg", { viewBox: "0 0 24 24", width: "24", height: "24", fill: "none", stroke: "currentColor", "stroke-width": "2", "stroke-linejoin": "round", "stroke-linecap": "round", "aria-hidden": "true" });
    drawn.append(draw("path", { d: "M4 5h16v11h-8l-5 4v-4H4zM8 10.5h.01M12 10.5h.01M16 10.5h.01" }));
    return drawn;
  };

  const safeLink = (address) => {
    try {
      const url = new URL(address);
      return ["https:", "http:", "mailto:"].includes(url.protocol) ? url.href : "";
    } catch {
      return "";
    }
  };

  const INLINE = /(`+)([\s\S]+?)\1(?!`)|!?\[([^\]\n]{0,500})\]\(\s*<?([^\s<>()]{1,2000}(?:\([^\s()]{0,500}\)[^\s<>()]{0,500})?)>?(?:\s+"[^"\n]{0,200}")?\s*\)|\*\*(?=\S)([^\n]+?\S|\S)\*\*|__(?=\S)([^\n]+?\S|\S)__(?!\w)|\*(?=[^\s*])([^*\n]*[^\s*])\*|~~(?=\S)([^\n]+?)~~|(https?:\/\/[^\s<>"'`]{1,2000}[^\s<>"'`.,;:!?)\]])/g;

  function inline(parent, text, depth = 0) {
    let at = 0;
    for (const match of depth > 4 ? [] : text.matchAll(INLINE)) {
      const [whole, , code, label, address, strong, strong2, weak, gone, bare] = match;
      if (match.index > at) parent.append(text.slice(at, match.index));
      at = match.index + whole.length;
      if (code !== undefined) parent.append(make("code", "", code.trim() || code, "code"));
      else if (label !== undefined || bare !== undefined) {
        const href = safeLink(bare ?? address);
        if (!href) {
          parent.append(whole);
          continue;
        }
        const link = make("a", "", "", "link");
        Object.assign(link, { href, target: "_blank", rel: "noopener noreferrer nofollow" });
        if (bare !== undefined) link.textContent = bare;
        else inline(link, label || address, 5);
        parent.append(link);
      } else {
        const inner = make(strong ?? strong2 ? "strong" : weak ? "em" : "s");
        inline(inner, strong ?? strong2 ?? weak ?? gone, depth + 1);
        parent.append(inner);
      }
    }
    if (at < text.length) parent.append(text.slice(at));
  }

  const ITEM = /^(\s*)(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

  function markdown(text) {
    const out = document.createDocumentFragment();
    const lines = text.split("\n");
    let at = 0;
    const block = (element) => (element.setAttribute("dir", "auto"), out.append(element), element);
    while (at < lines.length) {
      const line = lines[at];
      const fence = /^\s{0,3}(`{3,}|~{3,})/.exec(line);
      const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
      if (fence) {
        const body = [];
        for (at += 1; at < lines.length && !lines[at].trim().startsWith(fence[1]); at += 1) body.push(lines[at]);
        at += 1;
        const pre = make("pre", "", "", "pre");
        pre.tabIndex = 0;
        pre.append(make("code", "", body.join("\n")));
        out.append(pre);
      } else if (heading) {
        inline(block(make(heading[1].length < 2 ? "h3" : heading[1].length < 3 ? "h4" : "h5")), heading[2]);
        at += 1;
      } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
        out.append(make("hr"));
        at += 1;
      } else if (/^\s*>/.test(line)) {
        const body = [];
        for (; at < lines.length && /^\s*>/.test(lines[at]); at += 1) body.push(lines[at].replace(/^\s*>\s?/, ""));
        const quote = block(make("blockquote"));
        inline(quote, body.join("\n"));
      } else if (ITEM.test(line)) at = list(block, lines, at);
      else if (line.includes("|") && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(lines[at + 1] || "")) {
        const table = block(make("table"));
        const row = (texts, tag) => texts.slice(0, 40).forEach((cell, n, all) => (n || (table.append(make("tr"))), inline(table.lastChild.appendChild(make(tag)), cell), all));
        row(cells(line), "th");
        for (at += 2; at < lines.length && lines[at].includes("|"); at += 1) row(cells(lines[at]), "td");
      } else if (!line.trim()) at += 1;
      else {
        const body = [];
        for (; at < lines.length && lines[at].trim() && !/^\s{0,3}(`{3,}|~{3,}|#{1,6}\s|>)/.test(lines[at]) && !(body.length && ITEM.test(lines[at])); at += 1) body.push(lines[at]);
        if (!body.length) body.push(lines[at++]);
        const paragraph = block(make("p"));
        body.forEach((piece, n) => (n && paragraph.append(make("br")), inline(paragraph, piece.trim())));
      }
    }
    return out;
  }

  // Items by their indentation; a bound on the depth, for an answer may be anything.
  function list(block, lines, start) {
    let at = start;
    const open = [];
    for (let match; at < lines.length && (match = ITEM.exec(lines[at]) || (open.length && /^\s{2,}\S/.test(lines[at]) && [null])); at += 1) {
      if (match[0] === null) {
        const last = open.at(-1).list.lastChild;
        last.append(make("br"));
        inline(last, lines[at].trim());
        continue;
      }
      const depth = match[1].replaceAll("\t", "    ").length;
      while (open.length > 1 && depth < open.at(-1).depth) open.pop();
      if (!open.length || (depth > open.at(-1).depth + 1 && open.length < 8)) {
        const made = make(match[2] ? "ul" : "ol");
        if (match[3] && match[3] !== "1") made.start = Number(match[3]);
        if (open.length) open.at(-1).list.lastChild.append(made);
        else block(made);
        open.push({ depth, list: made });
      }
      const item = make("li");
      inline(item, match[4]);
      open.at(-1).list.append(item);
    }
    return at;
  }

  // --- the gateway

  const endpointOf = (given) => {
    const url = new URL(given || location.origin, location.href);
    const path = url.pathname.replace(/\/+$/, "");
    if (!/\/(chat|stream)$/.test(path)) url.pathname = path + ENDPOINT;
    return url;
  };
  const baseOf = (endpoint) => endpoint.href.replace(/\/(v1\/chat\/stream|v1\/chat|chat)\/?(\?.*)?$/, "");
  const pause = (milliseconds, signal) =>
    new Promise((done, fail) => {
      const timer = setTimeout(done, milliseconds);
      signal?.addEventListener("abort", () => (clearTimeout(timer), fail(signal.reason)), { once: true });
    });

  // Until the browser says that there is a network again.
  const online = (signal) =>
    new Promise((done, fail) => {
      const over = new AbortController();
      const end = (how) => (value) => (over.abort(), clearTimeout(timer), how(value));
      const timer = setTimeout(end(done), OFFLINE);
      addEventListener("online", end(done), { signal: over.signal });
      signal.addEventListener("abort", () => end(fail)(signal.reason), { signal: over.signal });
    });

  class Failed extends Error {
    constructor(text, { again = true, wait = 0, status = 0 } = {}) {
      super(text);
      Object.assign(this, { again, wait, status });
    }
  }

  // The credential: a token from the page's own server, renewed at the gateway; or what stands in data-api-key.
  class Access {
    constructor(widget) {
      this.widget = widget;
      this.token = "";
      this.ends = 0;
    }

    async headers() {
      const { tokenUrl, apiKey } = this.widget.dataset;
      if (tokenUrl && !this.token) await this.fetchToken(tokenUrl);
      else if (tokenUrl && Date.now() > this.ends - EARLY) await this.renew().catch(() => this.fetchToken(tokenUrl));
      const secret = this.token || apiKey || "";
      return secret ? { "x-widget-api-key": secret } : {};
    }

    // One at a time: of two, the later one would put the page's sessions behind another prefix.
    fetchToken(url) {
      return (this.fetching ??= this.fetchAnother(url).finally(() => (this.fetching = null)));
    }

    async fetchAnother(url) {
      const answer = await fetch(new URL(url, location.href), { method: "POST", credentials: "same-origin", headers: { "content-type": "application/json" }, body: "{}" });
      if (!answer.ok) throw new Failed(this.widget.text("refused"), { status: answer.status });
      this.take(await answer.json());
    }

    async renew() {
      const answer = await fetch(`${baseOf(this.widget.endpoint)}/v1/tokens/renew`, { method: "POST", headers: { authorization: `Bearer ${this.token}` } });
      if (!answer.ok) throw new Failed("renewal refused");
      this.take(await answer.json());
    }

    take({ token, expiresAt }) {
      this.token = String(token || "");
      this.ends = Date.parse(expiresAt) || Date.now() + 300_000;
    }

    forget() {
      const had = Boolean(this.token);
      this.token = "";
      return had && Boolean(this.widget.dataset.tokenUrl);
    }
  }

  async function* lines(response, signal) {
    // no pipe: where the connection breaks, one would throw away what has come and was not read yet
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    signal.addEventListener("abort", () => reader.cancel().catch(() => {}), { once: true });
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      const pieces = (rest + decoder.decode(value, { stream: !done })).split("\n");
      rest = done ? "" : pieces.pop();
      for (const piece of pieces) {
        if (!piece.trim()) continue;
        try {
          yield JSON.parse(piece);
        } catch {
          // what cannot be read is passed over, as unknown types are
        }
      }
      if (done) return;
    }
  }

  // --- the element

  class SluiceChat extends HTMLElement {
    static observedAttributes = ["data-texts", "data-title", "data-placeholder"];

    constructor() {
      super();
      this.root = this.attachShadow({ mode: "open" });
      this.access = new Access(this);
      this.messages = [];
      this.syncs = 0;
      this.words = TEXTS;
    }

    connectedCallback() {
      this.watch ??= new MutationObserver(() => this.label());
      this.watch.observe(document, { attributes: true, attributeFilter: ["lang"], subtree: true });
      if (this.built) return this.label();
      this.built = true;
      this.dataset.mode ||= "inline";
      this.endpoint = endpointOf(this.dataset.apiUrl);
      this.storage = { none: null, session: "sessionStorage" }[this.dataset.keep ?? "local"] ?? (this.dataset.keep === "none" ? null : "localStorage");
      this.build();
      this.label();
      this.restore();
      if (!this.panel.hidden) this.load();
    }

    disconnectedCallback() {
      this.watch.disconnect();
      this.stop();
    }

    attributeChangedCallback() {
      if (this.built) this.label();
    }

    // The language of the page, where the widget speaks it.
    language() {
      return nearest(this.closest("[lang]")?.lang || document.documentElement.lang);
    }

    // Writes all texts but those that somebody has said: at first, and where the language changes.
    label() {
      const language = this.language();
      this.words = { ...TEXTS };
      Object.keys(TEXTS).forEach((name, at) => (this.words[name] = LANGUAGES[language]?.[at] || TEXTS[name]));
      try {
        Object.assign(this.words, JSON.parse(this.dataset.texts || "{}"));
      } catch {
        // the built-in words, then
      }
      const title = this.dataset.title || this.text("title");
      this.panel.lang = language || "en";
      if (RIGHT_TO_LEFT.includes(language)) this.panel.dir = "rtl"; // else the page's
      else this.panel.removeAttribute("dir");
      this.panel.setAttribute("aria-label", title);
      this.heading.textContent = title;
      this.again.textContent = this.text("clear");
      this.name_.textContent = this.text("write");
      this.input.placeholder = this.dataset.placeholder || this.text("write");
      this.button.textContent = this.text(this.running ? "stop" : "send");
      if (this.bubble) this.bubble.textContent = this.text(this.panel.hidden ? "open" : "close");
      for (const who of this.log.querySelectorAll(".message > .sr")) who.textContent = `${this.text(who.parentNode.classList.contains("user") ? "you" : "bot")}: `;
    }

    text(name) {
      return this.words[name] || TEXTS[name] || name;
    }

    build() {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(STYLE);
      this.root.adoptedStyleSheets = [sheet];
      const bubbled = this.dataset.mode === "bubble";
      this.panel = make("section", "panel", "", "panel");
      if (bubbled) this.panel.setAttribute("role", "dialog");
      const header = make("header", "", "", "header");
      this.heading = make("b", "", "", "title");
      this.again = make("button", "", "", "clear");
      this.again.type = "button";
      this.again.onclick = () => this.clear();
      header.append(this.heading, this.again);
      this.log = make("div", "log", "", "messages");
      this.log.setAttribute("role", "log");
      this.log.setAttribute("aria-live", "polite");
      this.log.tabIndex = 0;
      const form = make("form", "", "", "form");
      this.name_ = make("label", "sr");
      this.name_.htmlFor = "input";
      this.input = make("textarea", "", "", "input");
      Object.assign(this.input, { id: "input", rows: 1, dir: "auto", maxLength: Number(this.dataset.maxLength) || 4000, enterKeyHint: "send" });
      this.button = make("button", "", "", "send");
      form.append(this.name_, this.input, this.button);
      form.onsubmit = (event) => {
        event.preventDefault();
        if (this.running) this.stop();
        else this.send(this.input.value);
      };
      this.input.onkeydown = (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
          event.preventDefault();
          if (!this.running) this.send(this.input.value);
        }
      };
      this.panel.append(header, this.log, form);
      this.root.append(this.panel);
      if (bubbled) this.bubbled();
    }

    bubbled() {
      const bubble = make("button", "bubble", "", "bubble");
      bubble.type = "button";
      this.bubble = make("span", "sr");
      bubble.append(this.bubble, icon());
      const show = (open) => {
        this.panel.hidden = !open;
        if (open) this.load();
        this.bubble.textContent = this.text(open ? "close" : "open");
        bubble.setAttribute("aria-expanded", String(open));
      };
      bubble.onclick = () => {
        show(this.panel.hidden);
        (this.panel.hidden ? bubble : this.input).focus();
      };
      this.panel.addEventListener("keydown", (event) => {
        if (event.key === "Escape") {
          show(false);
          bubble.focus();
        }
      });
      this.root.append(bubble);
      show(this.hasAttribute("data-open"));
    }

    // --- what is kept over reloads: the session's name and the messages, never a credential

    get place() {
      return `sluice-chat ${this.endpoint.href} ${this.dataset.model || ""}`;
    }

    restore() {
      let kept = null;
      try {
        kept = this.storage && JSON.parse(window[this.storage].getItem(this.place) || "null");
      } catch {
        // storage is off, or holds something else
      }
      const known = this.dataset.session || (typeof kept?.session === "string" && /^[\w.:-]{1,128}$/.test(kept.session) ? kept.session : "");
      this.session = known || this.newSession();
      this.unread = Boolean(known && this.storage);
      const messages = kept?.session === this.session && Array.isArray(kept.messages) ? kept.messages.filter((one) => one && typeof one.text === "string") : [];
      this.messages = messages.slice(-KEPT).map(({ role, text }) => ({ role: role === "user" ? "user" : "assistant", text }));
      if (!this.messages.length && this.dataset.greeting) this.show({ role: "assistant", text: this.dataset.greeting });
      this.messages.forEach((message) => this.show(message));
    }

    keep() {
      try {
        if (this.storage) window[this.storage].setItem(this.place, JSON.stringify({ session: this.session, messages: this.messages.slice(-KEPT) }));
      } catch {
        // full, or off: the conversation goes on without
      }
    }

    newSession() {
      return `${this.dataset.sessionPrefix || ""}${[...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
    }

    clear() {
      this.stop();
      this.syncs += 1;
      this.messages = [];
      this.log.replaceChildren();
      this.session = this.dataset.session || this.newSession();
      this.keep();
      this.input.focus();
    }

    // --- what the gateway has kept of the session; where it cannot be read, what is shown stays

    // Once, of a session that may have something: one of an earlier page, or one that the page names.
    load() {
      if (!this.unread) return;
      this.unread = false;
      this.sync();
    }

    async history() {
      const url = `${baseOf(this.endpoint)}${HISTORY}?sessionId=${encodeURIComponent(this.session)}&limit=${KEPT}`;
      const ask = async () => fetch(url, { headers: await this.access.headers() });
      let answer = await ask();
      if (answer.status === 401 && this.access.forget()) answer = await ask();
      if (!answer.ok) throw new Failed("not to be read", { status: answer.status });
      const { messages } = await answer.json();
      return messages
        .filter((one) => typeof one?.content === "string" && one.content)
        .map(({ role, content, interrupted }) => ({ role: role === "user" ? "user" : "assistant", text: content, interrupted }));
    }

    async sync(later = LATER) {
      const round = (this.syncs += 1);
      const { length } = this.messages;
      let missing = true;
      try {
        const kept = await this.history();
        if (round !== this.syncs || !this.isConnected) return;
        if (this.running) return void (this.stale = true); // a turn has begun meanwhile: at its end, then
        if (this.messages.length !== length) return void this.sync();
        const tail = this.notIn(kept);
        const failed = this.log.querySelector(".error");
        missing = tail.length > 0 && Boolean(failed || tail.at(-1).role === "user");
        if (kept.length && !(failed && (missing || kept.at(-1).interrupted))) this.replace([...kept, ...tail], failed);
      } catch (error) {
        if (!(error instanceof TypeError)) return; // but for a network that is not there
      }
      if (missing && later.length) setTimeout(() => round === this.syncs && this.isConnected && this.sync(later.slice(1)), later[0]);
    }

    // The last turn that is shown, where the gateway does not have it: it failed, or still runs there.
    notIn(kept) {
      const at = this.messages.map(({ role }) => role).lastIndexOf("user");
      if (at < 0) return [];
      const said = (list) => list.filter(({ role }) => role === "user").map(({ text }) => text);
      const count = (texts) => texts.filter((text) => text === this.messages[at].text).length;
      const [theirs, ours] = [said(kept), said(this.messages)];
      return count(ours.slice(-theirs.length)) > count(theirs) ? this.messages.slice(at) : [];
    }

    replace(messages, failed) {
      const text = (list) => list.map((one) => `${one.role} ${one.text}`).join("\0");
      if (text(messages) === text(this.messages) && !failed) return;
      this.log.setAttribute("aria-live", "off"); // what was said before is not read out
      this.messages = messages.map((one) => ({ role: one.role, text: one.text }));
      this.log.replaceChildren();
      this.messages.forEach((message) => this.show(message));
      this.keep();
      setTimeout(() => this.log.setAttribute("aria-live", "polite"), 100);
    }

    // --- messages

    show(message) {
      const element = make("div", `message ${message.role}`, "", `message ${message.role}`);
      element.setAttribute("dir", "auto");
      const who = make("span", "sr", `${this.text(message.role === "user" ? "you" : "bot")}: `);
      who.dir = "auto"; // of its own: the message's direction is that of what was said
      element.append(who);
      if (message.role === "user") element.append(message.text);
      else element.append(markdown(message.text));
      this.log.append(element);
      this.scroll(true);
      return element;
    }

    scroll(always = false) {
      const log = this.log;
      if (always || log.scrollHeight - log.scrollTop - log.clientHeight < 80) log.scrollTop = log.scrollHeight;
    }

    stop() {
      this.running?.abort(new DOMException("stopped", "AbortError"));
    }

    send(given) {
      const text = given.trim();
      if (!text || this.running) return;
      this.input.value = "";
      const message = { role: "user", text };
      this.messages.push(message);
      this.show(message);
      this.keep();
      this.answer(text);
    }

    async answer(text) {
      const control = (this.running = new AbortController());
      this.button.textContent = this.text("stop");
      this.button.setAttribute("part", "send stop");
      const element = this.show({ role: "assistant", text: "" });
      element.classList.add("waiting");
      const state = { text: "", reasoning: "", stream: "", last: -1, over: false, element };
      this.log.setAttribute("aria-busy", "true"); // read out when it is complete
      try {
        await this.follow(text, state, control.signal);
      } catch (error) {
        if (error.name !== "AbortError" && !control.signal.aborted) {
          this.failed(error, text);
          state.broken ||= !error.status && !state.over;
        }
      }
      cancelAnimationFrame(state.due);
      this.draw(state);
      element.classList.remove("waiting");
      if (state.text) this.messages.push({ role: "assistant", text: state.text });
      else element.remove();
      this.log.setAttribute("aria-busy", "false");
      this.button.textContent = this.text("send");
      this.button.setAttribute("part", "send");
      this.running = null;
      this.keep();
      if (this.stale || (state.broken && !control.signal.aborted)) {
        this.stale = false;
        this.sync();
      }
    }

    // One call: an expired token is replaced once, a stream that breaks is gone on with where the gateway keeps it.
    async follow(text, state, signal) {
      const body = JSON.stringify({ sessionId: this.session, message: text, ...(this.dataset.model ? { model: this.dataset.model } : {}) });
      const ask = async () =>
        fetch(this.endpoint, { method: "POST", signal, body, headers: { ...(await this.access.headers()), "content-type": "application/json", accept: "application/x-ndjson; profile=full" } });
      let answer = await this.sent(ask);
      if (answer.status === 401 && this.access.forget()) answer = await this.sent(ask);
      if (!answer.ok) throw await this.refusal(answer);
      for (let tries = 0; ; tries += 1) {
        try {
          for await (const line of lines(answer, signal)) this.take(line, state);
        } catch (error) {
          if (signal.aborted || error instanceof Failed) throw error;
        }
        if (signal.aborted || state.over) return;
        state.broken = true;
        if (!state.stream || tries === RESUMES) throw new Failed(this.text("broken"));
        if (!navigator.onLine) {
          await online(signal); // however long that takes, within reason
          tries = 0;
        }
        await pause(500 * 2 ** tries, signal);
        const url = `${baseOf(this.endpoint)}${ENDPOINT}/${encodeURIComponent(state.stream)}?after=${state.last}`;
        answer = await this.sent(async () => fetch(url, { signal, headers: await this.access.headers() })).catch((error) => {
          if (signal.aborted) throw error;
          return { body: new Response("").body, ok: true };
        });
        if (!answer.ok) throw new Failed(this.text("broken"));
      }
    }

    async sent(ask) {
      try {
        return await ask();
      } catch (error) {
        throw error.name === "AbortError" || error instanceof Failed ? error : new Failed(this.text("broken"));
      }
    }

    async refusal(answer) {
      const wait = Math.min(Number(answer.headers.get("retry-after")) || 0, 3600);
      const found = await answer.json().catch(() => ({}));
      if (answer.status === 429 || answer.status === 503) return new Failed(this.text("busy"), { wait, again: answer.headers.get("x-should-retry") !== "false", status: answer.status });
      if (answer.status === 401 || answer.status === 403) return new Failed(this.text("refused"), { again: false, status: answer.status });
      if (answer.status === 400 || answer.status === 413) {
        const long = (found.details || []).some((one) => one.field === "message");
        return new Failed(this.text(long ? "long" : "failed"), { again: false, status: answer.status });
      }
      return new Failed(this.text("failed"), { wait, status: answer.status });
    }

    take(line, state) {
      if (typeof line?.n === "number") state.last = line.n;
      switch (line?.type) {
        case "start":
          state.stream = line.streamId || state.stream;
          break;
        case "token":
          state.text += line.token || "";
          break;
        case "reasoning":
          state.reasoning += line.text || "";
          break;
        case "reset":
          state.text = state.reasoning = "";
          break;
        case "done":
          state.text = typeof line.message === "string" ? line.message : state.text;
          state.over = true;
          break;
        case "error":
          state.over = true;
          throw new Failed(this.text("failed"));
        default:
          return;
      }
      this.drawSoon(state);
    }

    // Once a frame at most, and less often the longer the answer is: all of it is laid out anew.
    drawSoon(state) {
      if (state.due) return;
      const late = state.text.length > 20_000 ? 300 : 0;
      state.due = requestAnimationFrame(async () => {
        if (late) await pause(late);
        state.due = 0;
        if (this.running) this.draw(state);
      });
    }

    draw(state) {
      const { element } = state;
      const folded = element.querySelector("details");
      const parts = [element.firstChild];
      if (state.reasoning) {
        const details = folded || make("details", "", "", "reasoning");
        details.open = folded ? folded.open : false;
        details.replaceChildren(make("summary", "", this.text("reasoning")), state.reasoning);
        parts.push(details);
      }
      element.classList.toggle("waiting", !state.text);
      element.replaceChildren(...parts, markdown(state.text));
      this.scroll();
    }

    failed(error, text) {
      const element = make("div", "message error", "", "message error");
      element.setAttribute("role", "alert");
      element.append(make("p", "", error.message));
      if (error.again !== false) {
        const retry = make("button", "retry", this.text("retry"), "retry");
        retry.type = "button";
        let left = Math.ceil(error.wait || 0);
        const tick = () => {
          retry.disabled = left > 0;
          retry.textContent = left > 0 ? this.text("wait").replace("{n}", String(left)) : this.text("retry");
          if (left-- > 0) setTimeout(tick, 1000);
        };
        tick();
        retry.onclick = () => {
          if (this.running) return;
          element.remove();
          this.answer(text);
        };
        element.append(retry);
      }
      this.log.append(element);
      this.scroll(true);
    }
  }

  if (!customElements.get("sluice-chat")) customElements.define("sluice-chat", SluiceChat);

  // The short way: the script's own attributes put a bubble into the page.
  const script = document.currentScript;
  if (script && (script.dataset.apiUrl !== undefined || script.dataset.tokenUrl !== undefined)) {
    const add = () => {
      const widget = document.createElement("sluice-chat");
      Object.assign(widget.dataset, script.dataset);
      widget.dataset.apiUrl ||= new URL(script.src).origin;
      widget.dataset.mode ||= "bubble";
      document.body.append(widget);
    };
    if (document.body) add();
    else addEventListener("DOMContentLoaded", add);
  }
})();
