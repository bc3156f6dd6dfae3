import { render } from "preact";
import { App } from "./app";
import { applyTheme } from "./ui/theme";
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/parts.css";

applyTheme();
const root = document.getElementById("app")!;
root.replaceChildren();
render(<App />, root);
