"""The backend for Gemini's generateContent, at the Gemini API and on Vertex AI."""
