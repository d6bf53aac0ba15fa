// The page: sends a picture, follows its job, shows the answer. No framework, no build step.

const $ = (id) => document.getElementById(id);
const POLL = 400; // milliseconds between two looks at a job
// Colours of the overlay (COLORS in prediction/overlay.py), so that people can be told apart in the list.
const COLORS = ["#7aace0", "#ee8c70", "#92c482", "#b498de", "#e8c262", "#5cbab8", "#e48eb4", "#cab094"];
let about = null;
let job = null; // address of the job that is shown or awaited
let turn = 0; // number of the last picture; what belongs to an earlier one is not shown any more

async function ask(address, options = {}) {
  const answer = await fetch(address, options);
  const body = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (answer.ok) return body;
  if (answer.status === 401) location.reload(); // the server asks for its token
  throw new Error(body?.detail ?? `The server answered ${answer.status}.`);
}

/** Sends the form and tells how much of it has gone (fetch cannot). */
function send(address, form, sent) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && sent(event.loaded / event.total);
    request.onload = () => {
      if (request.status === 202) return resolve(request.response);
      if (request.status === 401) location.reload();
      reject(new Error(request.response?.detail ?? `The server answered ${request.status}.`));
    };
    request.onerror = () => reject(new Error("The server cannot be reached, or it refused the upload."));
    request.send(form);
  });
}

function query() {
  const given = new URLSearchParams();
  for (const [name, value] of new FormData($("options"))) if (value !== "") given.append(name, value);
  if (!given.has("formats")) given.append("formats", "glb");
  return given;
}

function tell(stage, share) {
  $("stage").textContent = stage;
  if (share === null) $("bar").removeAttribute("value");
  else $("bar").value = share;
}

function fail(error) {
  $("work").hidden = true;
  $("problem").textContent = error.message;
  $("problem").hidden = false;
}

async function predict(picture) {
  const mine = ++turn;
  $("problem").hidden = true;
  if (!$("options").reportValidity()) return;
  $("results").hidden = true;
  try {
    if (about && picture.size > about.max_upload_bytes)
      throw new Error(`The file is larger than ${about.max_upload_bytes / 1e6} MB; make it smaller.`);
    $("work").hidden = false;
    tell("Sending", 0);
    const form = new FormData();
    form.append("photo", picture, "photo"); // its own name is not sent
    let status = await send(`/jobs?${query()}`, form, (share) => mine === turn && tell("Sending", share));
    const address = `/jobs/${status.id}`;
    if (mine !== turn) return void ask(address, { method: "DELETE" });
    job = address;
    while (status.state === "waiting" || status.state === "running") {
      const ahead = status.ahead === 1 ? "1 upload is" : `${status.ahead} uploads are`;
      const line = status.ahead > 0 ? `Waiting: ${ahead} before yours` : sentence(status.stage);
      tell(line, status.state === "waiting" ? null : status.share);
      await new Promise((resolve) => setTimeout(resolve, POLL));
      if (mine !== turn) return;
      status = await ask(address);
    }
    if (mine !== turn) return;
    if (status.problem) throw new Error(sentence(status.problem.detail));
    $("work").hidden = true;
    show(status.answer);
  } catch (error) {
    if (mine === turn) fail(error);
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function element(name, content, attributes = {}) {
  const made = document.createElement(name);
  made.append(...[content].flat());
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const download = (address, text, label = text) => element("a", text, { href: address, download: "", "aria-label": label });

function show(answer) {
  const there = answer.people.length > 0;
  const scenes = answer.clip ? { param: answer.people[0]?.files.animation?.glb } : { lixel: answer.files.lixel_scene, param: answer.files.param_scene };
  $("summary").textContent = answer.clip ? aboutClip(answer) : aboutPhoto(answer);
  document.querySelector(".views").hidden = !there;
  $("together").parentElement.hidden = !(scenes.lixel && scenes.param);
  source("overlay", answer.clip ? null : answer.files.overlay);
  $("overlay-link").href = answer.files.overlay ?? "";
  source("clip", answer.clip ? answer.files.overlay : null);
  for (const kind of ["lixel", "param"]) source(kind, scenes[kind]);
  $("people").replaceChildren(...answer.people.map(answer.clip ? tracked : person));
  const all = {
    "Everything (ZIP)": `/jobs/${answer.id}/results.zip`,
    "Lixel meshes (GLB)": answer.files.lixel_scene,
    "Body models (GLB)": answer.files.param_scene,
    "Numbers (NPZ)": answer.files.arrays,
    "Numbers (JSON)": answer.files.record,
    [answer.clip ? "Overlay (MP4)" : "Overlay (JPEG)"]: answer.files.overlay,
    "Side by side (MP4)": answer.files.side_by_side,
    "2D joints (JPEG)": answer.files.joints,
  };
  const found = Object.entries(all).filter(([, address]) => address);
  $("downloads").replaceChildren(...found.map(([text, address]) => element("li", download(address, text))));
  const minutes = Math.max(1, Math.round(answer.keep_seconds / 60));
  $("kept").textContent = `The server deletes this result after ${minutes} ${minutes === 1 ? "minute" : "minutes"}.`;
  $("results").hidden = false;
  $("results-title").focus({ preventScroll: true });
  $("results").scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

/** Shows a file in its figure, or hides the figure. */
function source(identity, address) {
  $(identity).closest("figure").hidden = !address;
  if (address) $(identity).src = address;
  else $(identity).removeAttribute("src");
}

const counted = (count) => `${count} ${count === 1 ? "person" : "people"}.`;

function aboutPhoto(answer) {
  if (answer.people.length === 0) return "Nobody was found in this picture; a lower score in the options finds more.";
  const told = { exif: "told by the photo", given: "given", default: "assumed" }[answer.intrinsics.source];
  const more = answer.left_out > 0 ? ` ${answer.left_out} more were found than this server answers.` : "";
  return `${counted(answer.people.length)}${more} Focal length ${Math.round(answer.intrinsics.focal[0])} px (${told}).`;
}

function aboutClip(answer) {
  if (answer.people.length === 0) return "Nobody was found in this clip; a lower score in the options finds more.";
  return `${counted(answer.people.length)} ${answer.clip.frames} frames, ${answer.clip.duration.toFixed(1)} s.`;
}

/** A person of a clip; the button shows the animation. */
function tracked(found, index) {
  const line = [swatch(COLORS[index % COLORS.length]), element("strong", `Person ${index + 1}`)];
  const sure = found.confidence === null ? "" : `, keypoints ${percent(found.confidence)}`;
  line.push(element("span", `from ${found.start.toFixed(1)} to ${found.end.toFixed(1)} s${sure}`));
  const { glb } = found.files.animation ?? {};
  if (glb) {
    const turn = element("button", "Show", { type: "button", "aria-label": `Show person ${index + 1} in 3D` });
    turn.onclick = () => source("param", glb);
    line.push(turn);
  }
  return element("li", [...line, ...filesOf(found, index)]);
}

function person(found, index) {
  const line = [swatch(COLORS[index % COLORS.length]), element("strong", `Person ${index + 1}`)];
  const facts = [`score ${percent(found.score)}`];
  if (found.confidence !== null) facts.push(`keypoints ${percent(found.confidence)}`);
  facts.push(`${found.root_depth.toFixed(1)} m away`);
  if (found.reprojection_error) facts.push(`reprojection ${found.reprojection_error.median.toFixed(1)} px`);
  line.push(element("span", facts.join(", ")));
  if (!found.reliable) line.push(element("span", "doubtful: do not trust this mesh", { class: "doubtful" }));
  return element("li", [...line, ...filesOf(found, index)]);
}

const KINDS = { lixel: "Lixel ", param: "Body ", animation: "Animated ", arrays: "" };

const filesOf = (found, index) =>
  Object.entries(found.files).flatMap(([kind, formats]) =>
    Object.entries(formats).map(([format, address]) => {
      const text = `${KINDS[kind] ?? `${kind} `}${format.toUpperCase()}`;
      return download(address, text, `${text} of person ${index + 1}`);
    }),
  );

const percent = (share) => `${Math.round(100 * share)} %`;

/** A drawn square: the server's policy allows no style attributes that scripts could be hidden in. */
function swatch(color) {
  const name = "http://www.w3.org/2000/svg";
  const square = document.createElementNS(name, "svg");
  const shape = document.createElementNS(name, "rect");
  for (const [key, value] of Object.entries({ width: 16, height: 16, "aria-hidden": "true" })) square.setAttribute(key, value);
  for (const [key, value] of Object.entries({ width: 16, height: 16, rx: 4, fill: color })) shape.setAttribute(key, value);
  square.append(shape);
  return square;
}

function forget() {
  turn++;
  if (job) ask(job, { method: "DELETE" }).catch(() => {}); // gone already
  job = null;
  $("work").hidden = $("results").hidden = true;
  $("choose").focus();
}

// Ways to a picture: chosen, dropped, pasted, an example, the camera.

function take(files) {
  const picture = [...files].find((file) => file);
  if (picture) predict(picture);
}

$("choose").onclick = () => $("file").click();
$("file").onchange = (event) => {
  take(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
};
$("drop").ondragover = (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
};
$("drop").ondragleave = () => $("drop").classList.remove("over");
$("drop").ondrop = (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files);
};
addEventListener("paste", (event) => take(event.clipboardData.files));
for (const button of document.querySelectorAll("[data-example]"))
  button.onclick = async () => predict(await (await fetch(button.querySelector("img").src)).blob());
$("cancel").onclick = $("forget").onclick = forget;

let stream = null;
$("camera").onclick = async () => {
  $("problem").hidden = true;
  try {
    if (!navigator.mediaDevices) throw new Error("The browser allows the camera only on this machine or over https.");
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
    $("video").srcObject = stream;
    $("camera-dialog").showModal();
  } catch (error) {
    fail(new Error(`The camera cannot be used. ${error.message}`));
  }
};
$("shoot").onclick = () => {
  const video = $("video");
  if (!video.videoWidth) return; // the camera is still starting
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((picture) => predict(picture), "image/jpeg", 0.92);
  $("camera-dialog").close();
};
$("camera-close").onclick = () => $("camera-dialog").close();
$("camera-dialog").onclose = () => {
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = $("video").srcObject = null;
};

// Both meshes are turned together.
for (const [one, other] of [["lixel", "param"], ["param", "lixel"]])
  $(one).addEventListener("camera-change", (event) => {
    if (event.detail.source !== "user-interaction" || !$("together").checked) return;
    $(other).cameraOrbit = $(one).getCameraOrbit().toString();
    $(other).cameraTarget = $(one).getCameraTarget().toString();
    $(other).fieldOfView = `${$(one).getFieldOfView()}deg`;
    $(other).jumpCameraToGoal();
  });

try {
  about = await ask("/about");
  $("limits").textContent = `JPEG, PNG, WebP, MP4, WebM and others, up to ${about.max_upload_bytes / 1e6} MB; clips up to ${about.max_clip_length} s.`;
  $("version").textContent = `· version ${about.version}`;
} catch (error) {
  fail(error);
}
