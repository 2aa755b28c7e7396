// The task of all JavaScript drivers: two tools to call one after the other, or an object to give.
export const TASK = "Write a short note, read it again, and say what it says.";
export const ASKED = "Say in an object what the note is called, and how many lines it has.";
export const TURNS = 6;
const object = (properties, required) => ({ type: "object", properties, required, additionalProperties: false });
export const TOOLS = [
  { name: "write_note", description: "Keep a note.", parameters: object({ text: { type: "string" } }, ["text"]) },
  { name: "read_note", description: "Give it.", parameters: object({}, []) },
];
export const FUNCTIONS = TOOLS.map((one) => ({ type: "function", function: one }));
export const OBJECT = object({ title: { type: "string" }, lines: { type: "integer" } }, ["title", "lines"]);

let note = "";
export const run = { write_note: ({ text }) => ((note = text), "kept"), read_note: () => note };
export const forget = () => (note = "");
