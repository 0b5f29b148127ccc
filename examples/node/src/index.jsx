import React, { useState } from "react";
import { createRoot } from "react-dom/client";

function Counter() {
  const [count, setCount] = useState(0);
  return <button onClick={() => setCount(count + 1)}>built in a container, clicked {count} times</button>;
}

createRoot(document.getElementById("root")).render(<Counter />);
