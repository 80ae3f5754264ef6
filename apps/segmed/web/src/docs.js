// The server's interface at /docs, by Swagger UI.

import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";
import "swagger-ui-dist/swagger-ui.css";

SwaggerUI({ dom_id: "#docs", url: "openapi.json", docExpansion: "list", defaultModelsExpandDepth: -1 });
