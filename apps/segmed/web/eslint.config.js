// Rules for the page and for the additions to OHIF, whose files lie beside this folder.
import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: ["**/dist/", "**/node_modules/", "**/.build-*/"] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2023, sourceType: "module" },
    rules: {
      "array-callback-return": "error",
      curly: ["error", "multi-line"],
      eqeqeq: "error",
      "no-console": "error",
      "no-implicit-coercion": "error",
      "no-param-reassign": "error",
      "no-restricted-properties": ["error", { object: "window", property: "segmed", message: "No hooks for tests." }],
      "no-shadow": "error",
      "no-useless-return": "error",
      "no-var": "error",
      "object-shorthand": "error",
      "prefer-const": "error",
      "prefer-template": "error",
    },
  },
  { files: ["web/src/**", "ohif/**"], languageOptions: { globals: globals.browser } },
  { files: ["ohif/app-config.js"], languageOptions: { sourceType: "script" } },
  { files: ["web/*.js", "web/test/**"], languageOptions: { globals: globals.node } },
];
