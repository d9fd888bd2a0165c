"""The bundled stories: small English stories by the megabyte, without a download."""
