// The attributes of <sluice-chat>: docs/widget.md says what each is.

export interface SluiceChatAttributes {
  "data-api-url"?: string;
  "data-token-url"?: string;
  "data-api-key"?: string;
  "data-model"?: string;
  "data-mode"?: "inline" | "bubble";
  "data-position"?: "bottom-right" | "bottom-left";
  "data-open"?: "" | boolean;
  "data-title"?: string;
  "data-greeting"?: string;
  "data-placeholder"?: string;
  "data-texts"?: string;
  "data-theme"?: "light" | "dark";
  "data-keep"?: "local" | "session" | "none";
  "data-session"?: string;
  "data-session-prefix"?: string;
  "data-max-length"?: string | number;
  lang?: string;
}

declare global {
  interface HTMLElementTagNameMap {
    "sluice-chat": HTMLElement;
  }
}
