/** Who works here: a name of the user's choice, or that of the login. */
import { button, input, onClick } from "./dom.js";

const KEPT_AS = "segmed.client"; // in the browser

export class UserPanel {
  /** @param {{changed: () => void, fail: (error: Error) => void}} actions changed: another one works now */
  constructor(actions) {
    this.actions = actions;
    this.field = input("#client");
    this.field.value = localStorage.getItem(KEPT_AS) || `user-${Math.random().toString(36).slice(2, 6)}`;
    this.#keep();
    this.field.addEventListener("change", () => {
      this.#keep();
      actions.changed();
    });
    onClick("#logout", () => logOut().catch(actions.fail));
  }

  get name() {
    return this.field.value.trim() || "user";
  }

  /**
   * Who has logged in works under that name, whatever the field held.
   * @param {string} name
   * @returns {boolean} whether it was another one before
   */
  logIn(name) {
    if (this.field.value === name && this.field.readOnly) return false;
    this.field.value = name;
    this.field.readOnly = true;
    button("#logout").hidden = false;
    return true;
  }

  #keep() {
    localStorage.setItem(KEPT_AS, this.name);
  }
}

async function logOut() {
  await fetch("logout", { method: "POST" });
  location.assign("login");
}
